"""What opening each layout takes: seconds, and memory that is no file's page, of files as large as published ones.

    python -m benchmarks.layouts FOLDER      # sparse files, written and removed one after another

Each is opened twice in a process of its own; the second time is reported: imports are aside, and the module that names
and shapes are checked against (under 0.1 s more the first time). The files hold zeros but for what is read to open
them. Exit code 1 where opening takes over a second, or anonymous memory over 5 % of the file.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.small_machine import anonymous_gb
from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape
from sigmagraph.engine.models.files.convert import is_block_matrix
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.load import load_diffusion_model, load_text_encoders, load_vae

Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""By name: dtype as safetensors has it, shape, and the bytes that are not zero."""
MEDIUM = MMDiTShape(24, 1536, 2048, 4096, 384, dual_attention_blocks=frozenset(range(13)))
LARGE = MMDiTShape(38, 2432, 2048, 4096, 192)
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "F8_E8M0": 1}
MOST_SECONDS, MOST_SHARE = 1.0, 0.05


def main() -> None:
    """Every layout in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--child", choices=tuple(LOADERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(opened(given.folder, given.child)))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    kept = [measured(given.folder, name, loader, tensors) for name, (loader, tensors) in layouts().items()]
    raise SystemExit(0 if all(kept) else 1)


def layouts() -> dict[str, tuple[str, Callable[[], Tensors]]]:
    """By name: which loader takes it, and its tensors."""
    medium, large = shapes_of(lambda: MMDiT(MEDIUM)), shapes_of(lambda: MMDiT(LARGE))
    vae = shapes_of(lambda: Autoencoder(VaeShape()))
    whole = {f"model.diffusion_model.{name}": shape for name, shape in medium.items()}
    whole |= {f"first_stage_model.{name}": shape for name, shape in vae.items()}
    return {
        "Medium, bf16": ("model", lambda: plain(medium, "BF16")),
        "Medium, fp16": ("model", lambda: plain(medium, "F16")),
        "Medium, fp32": ("model", lambda: plain(medium, "F32")),
        "Medium and VAE in one file, fp16": ("model", lambda: plain(whole, "F16")),
        "Large, bf16": ("model", lambda: plain(large, "BF16")),
        "Large, float8 plain": ("model", lambda: plain(large, "F8_E4M3")),
        "Large, float8 scale_weight": ("model", lambda: quantised(large, "F8_E4M3", "scale_weight", "")),
        "Large, float8 comfy_quant": ("model", lambda: quantised(large, "F8_E4M3", "weight_scale", "float8_e4m3fn")),
        "Large, int8_tensorwise": ("model", lambda: quantised(large, "I8", "weight_scale", "int8_tensorwise")),
        "T5-XXL, fp16": ("text", lambda: plain(t5_shapes(), "F16")),
        "T5-XXL, float8 plain": ("text", lambda: plain(t5_shapes(), "F8_E4M3")),
        "VAE, bf16": ("vae", lambda: plain(vae, "BF16")),
    }


def shapes_of(build: Callable[[], torch.nn.Module]) -> Shapes:
    """Names and shapes of a module's tensors."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def t5_shapes() -> Shapes:
    """Those of T5-XXL's encoder."""
    from transformers import T5Config, T5EncoderModel

    sizes = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False)
    found = dict(shapes_of(lambda: T5EncoderModel(config)))
    found.pop("encoder.embed_tokens.weight", None)
    return found


def plain(shapes: Shapes, dtype: str) -> Tensors:
    """Every tensor in one precision."""
    return {name: (dtype, shape, b"") for name, shape in shapes.items()}


def quantised(shapes: Shapes, dtype: str, scale: str, form: str) -> Tensors:
    """Matrices of blocks with a scale each, the rest in 16 bits; `form` is what `comfy_quant` says, if it is there."""
    found: Tensors = {}
    for name, shape in shapes.items():
        if not is_block_matrix(name, StoredTensor(shape, torch.float16, torch.Tensor)):
            found[name] = ("F16", shape, b"")
            continue
        layer, said = name.removesuffix("weight"), json.dumps({"format": form}).encode()
        found |= {name: (dtype, shape, b""), layer + scale: ("F32", (), b"\0\0\x80\x3f")}
        if form:
            found[layer + "comfy_quant"] = ("U8", (len(said),), said)
    if not form:
        found["scaled_fp8"] = (dtype, (0,), b"")
    return found


def measured(folder: Path, name: str, loader: str, tensors: Callable[[], Tensors]) -> bool:
    """One layout's line; whether it keeps the bounds."""
    path = folder / "layout.safetensors"
    written(path, tensors())
    command = [sys.executable, "-m", "benchmarks.layouts", str(path), "--child", loader]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    size = path.stat().st_size / 1e9
    path.unlink()
    if done.returncode:
        print(f"{name:34} {size:6.2f} GB  FAILED: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return False
    found = json.loads(done.stdout.splitlines()[-1])
    share = found["anonymous_gb"] / size
    print(f"{name:34} {size:6.2f} GB {found['seconds']:6.3f} s, anonymous {share:6.2%} of it", flush=True)
    return bool(found["seconds"] <= MOST_SECONDS and share <= MOST_SHARE)


def written(path: Path, tensors: Tensors) -> None:
    """A sparse file of these tensors, wide items first."""
    head: dict[str, Any] = {}
    at, filled = 0, dict[int, bytes]()
    for name, (dtype, shape, content) in sorted(
        tensors.items(), key=lambda item: (item[1][1] == (), -BYTES[item[1][0]])
    ):
        size = BYTES[dtype] * torch.Size(shape).numel()
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        filled |= {at: content} if content else {}
        at += size
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        data = file.tell()
        file.truncate(data + at)
        for start, content in filled.items():
            file.seek(data + start)
            file.write(content)


def opened(path: Path, loader: str) -> dict[str, float]:
    """Seconds and anonymous memory of the second opening; what the first one made is there still."""
    load = LOADERS[loader]
    first = load(path)
    before, began = anonymous_gb(), time.perf_counter()
    second = load(path)
    took = time.perf_counter() - began
    assert first is not second
    return {"seconds": round(took, 4), "anonymous_gb": max(0.0, anonymous_gb() - before)}


LOADERS: dict[str, Callable[[Path], object]] = {
    "model": load_diffusion_model,
    "text": lambda path: load_text_encoders([path]),
    "vae": load_vae,
}

if __name__ == "__main__":
    main()
