"""What opening each layout takes, of files as large as published ones: processor time, memory that is no file's page.

    python -m benchmarks.layouts FOLDER      # sparse files, written and removed one after another
    python -m benchmarks.layouts FOLDER --only GGUF

Each is opened in a process of its own, once its modules are imported: `first` makes the module that names and shapes
are checked against, `again` finds it. Then its network is used for the first time, streamed: `use` is that network,
and a block of it (of an autoencoder all) read through to the precision it computes in here. The files hold zeros but
for what is read so, which is in the page cache. Exit code 1 where opening takes over 0.3 s the first time, or anonymous
memory over 5 % of the file (of small files, 5 MB).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.small_machine import anonymous_gb
from benchmarks.sparse_files import Tensors, filled, quantised_blocks, safetensors, shards
from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape
from sigmagraph.engine.models.files.convert import is_block_matrix
from sigmagraph.engine.models.files.gguf import llama_name
from sigmagraph.engine.models.files.microscaled import BLOCK, TILE_BLOCKS, TILE_ROWS
from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.load import (
    load_controlnet,
    load_diffusion_model,
    load_text_encoders,
    load_vae,
    recipes_of,
)
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.text.clip import Clip

Shapes = Mapping[str, tuple[int, ...]]
MEDIUM = MMDiTShape(24, 1536, 2048, 4096, 384, dual_attention_blocks=frozenset(range(13)))
LARGE = MMDiTShape(38, 2432, 2048, 4096, 192)
MOST_SECONDS, MOST_SHARE, SMALL_GB = 0.3, 0.05, 0.1
USED = re.compile(r"(?:^|\.)(?:joint_blocks|transformer_blocks|block|blk)\.0\.")
ALL_OF_IT = re.compile("")
SMALL_KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "rotated int8": ("I8", {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}),
    "mxfp8": ("F8_E4M3", {"format": "mxfp8"}),
    "nvfp4": ("U8", {"format": "nvfp4"}),
}


class Layout(NamedTuple):
    """Which loader takes it, its tensors, and what writes them."""

    loader: str
    tensors: Callable[[], Tensors]
    write: Callable[[Path, Tensors], Path] = safetensors


def main() -> None:
    """Every layout in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="layouts whose name holds this")
    parser.add_argument("--child", choices=tuple(LOADERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(opened(given.folder, given.child)))
        return
    chosen = {name: layout for name, layout in layouts().items() if given.only in name}
    kept = [measured(given.folder, name, layout) for name, layout in chosen.items()]
    raise SystemExit(0 if all(kept) else 1)


def layouts() -> dict[str, Layout]:
    """Every layout by its name."""
    medium, large = shapes_of(lambda: MMDiT(MEDIUM)), shapes_of(lambda: MMDiT(LARGE))
    vae = shapes_of(lambda: Autoencoder(VaeShape()))
    whole = {f"model.diffusion_model.{name}": shape for name, shape in medium.items()}
    whole |= {f"first_stage_model.{name}": shape for name, shape in vae.items()}
    found = {
        "Medium, bf16": Layout("model", lambda: plain(medium, "BF16")),
        "Medium, fp16": Layout("model", lambda: plain(medium, "F16")),
        "Medium, fp32": Layout("model", lambda: plain(medium, "F32")),
        "Medium and VAE in one file, fp16": Layout("model", lambda: plain(whole, "F16")),
        "Large, bf16": Layout("model", lambda: plain(large, "BF16")),
        "Large, float8 plain": Layout("model", lambda: plain(large, "F8_E4M3")),
        "Large, float8 e5m2": Layout("model", lambda: plain(large, "F8_E5M2")),
        "Large, float8 scale_weight": Layout("model", lambda: quantised(large, "F8_E4M3", "scale_weight", {})),
        "Large, float8 comfy_quant": Layout("model", lambda: comfy_quant(large, "F8_E4M3", "float8_e4m3fn")),
        "Large, int8_tensorwise": Layout("model", lambda: comfy_quant(large, "I8", "int8_tensorwise")),
        "T5-XXL, fp16": Layout("text", lambda: plain(t5_shapes(), "F16")),
        "T5-XXL, float8 plain": Layout("text", lambda: plain(t5_shapes(), "F8_E4M3")),
        "VAE, bf16": Layout("vae", lambda: plain(vae, "BF16")),
    }
    for name, (dtype, said) in SMALL_KINDS.items():
        found[f"Large, {name}"] = Layout("model", partial(quantised, large, dtype, "weight_scale", said))
    for kind in ("Q8_0", "Q4_0"):  # rows of Large are not whole blocks of the K kinds
        found[f"Large, GGUF {kind}"] = Layout("model", partial(in_gguf, large, kind), quantised_blocks)
    found["Medium, GGUF Q4_K"] = Layout("model", lambda: in_gguf(medium, "Q4_K"), quantised_blocks)
    for kind in ("Q8_0", "Q4_K"):
        found[f"T5-XXL, GGUF {kind}"] = Layout("text", partial(t5_in_gguf, kind), quantised_blocks)
    return found | of_diffusers()


def of_diffusers() -> dict[str, Layout]:
    """Those in diffusers' names, by its own modules."""
    from diffusers import AutoencoderTiny, SD3ControlNetModel, SD3Transformer2DModel

    sizes = {"attention_head_dim": 64, "pooled_projection_dim": 2048, "out_channels": 16, "in_channels": 16}
    large = sizes | {"num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192}
    medium = sizes | {"num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
    text, no_text = {"joint_attention_dim": 4096}, {"joint_attention_dim": None, "use_pos_embed": False}
    whole = {"num_layers": 38, "qk_norm": "rms_norm", **large, **text}
    return {
        "Large, diffusers' shards, bf16": Layout(
            "model", lambda: plain(shapes_of(lambda: SD3Transformer2DModel(**whole)), "BF16"), shards
        ),
        "ControlNet of Large, fp16": Layout(
            "control",
            lambda: plain(shapes_of(lambda: SD3ControlNetModel(num_layers=19, **large, **no_text)), "F16"),
        ),
        "ControlNet, joint blocks, fp16": Layout(
            "control", lambda: plain(shapes_of(lambda: SD3ControlNetModel(num_layers=6, **medium, **text)), "F16")
        ),
        "TAESD3, fp16": Layout("vae", lambda: plain(shapes_of(lambda: AutoencoderTiny(latent_channels=16)), "F16")),
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


def quantised(shapes: Shapes, dtype: str, scale: str, said: Mapping[str, object]) -> Tensors:
    """Matrices of blocks with scales, the rest in 16 bits; `said` is what `comfy_quant` says, if it is there."""
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    note = json.dumps(said).encode()
    for name, shape in shapes.items():
        if not is_block_matrix(name, StoredTensor(shape, torch.float16, torch.Tensor)):
            found[name] = ("F16", shape, b"")
            continue
        layer, form = name.removesuffix("weight"), str(said.get("format"))
        found |= {name: (dtype, shape, b""), layer + scale: ("F32", (), b"\0\0\x80\x3f")}
        if "convrot" in said:
            found[layer + scale] = ("F32", (shape[0], 1), b"")
        if form in BLOCK:
            found[layer + scale] = ("F8_E8M0" if form == "mxfp8" else "F8_E4M3", scales_of(shape, BLOCK[form]), b"")
        if form == "nvfp4":
            found |= {name: (dtype, (shape[0], shape[1] // 2), b""), layer + "weight_scale_2": ("F32", (), b"")}
        if said:
            found[layer + "comfy_quant"] = ("U8", (len(note),), note)
    if not said:
        found["scaled_fp8"] = (dtype, (0,), b"")
    return found


def comfy_quant(shapes: Shapes, dtype: str, form: str) -> Tensors:
    """ComfyUI's newer form, with one scale a matrix."""
    return quantised(shapes, dtype, "weight_scale", {"format": form})


def scales_of(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    """The sides of the scales of a matrix, in whole tiles."""
    return -(-shape[0] // TILE_ROWS) * TILE_ROWS, -(-(shape[1] // block) // TILE_BLOCKS) * TILE_BLOCKS


def in_gguf(shapes: Shapes, kind: str) -> Tensors:
    """Matrices of blocks in one kind, the rest in 16 and 32 bits."""
    found = {}
    for name, shape in shapes.items():
        is_matrix = is_block_matrix(name, StoredTensor(shape, torch.float16, torch.Tensor))
        found[name] = (kind if is_matrix else "F16" if len(shape) > 1 else "F32", shape, b"")
    return found


def t5_in_gguf(kind: str) -> Tensors:
    """The same of T5, in llama.cpp's names."""
    return {llama_name(name): told for name, told in in_gguf(t5_shapes(), kind).items()}


def measured(folder: Path, name: str, layout: Layout) -> bool:
    """One layout's line; whether it keeps the bounds."""
    place = folder / "layout"
    place.mkdir(parents=True)
    try:
        names = ALL_OF_IT if layout.loader == "vae" else USED
        path = layout.write(place, filled(layout.tensors(), names))
        command = [sys.executable, "-m", "benchmarks.layouts", str(path), "--child", layout.loader]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        size = sum(file.stat().st_size for file in place.iterdir()) / 1e9
    finally:
        shutil.rmtree(place)
    if done.returncode:
        print(f"{name:34} {size:6.2f} GB  FAILED: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return False
    found = json.loads(done.stdout.splitlines()[-1])
    share = found["anonymous_gb"] / size
    times = f"first {found['first']:6.3f} s, again {found['again']:6.3f} s, use {found['use']:6.3f} s"
    print(f"{name:34} {size:6.2f} GB  {times}, anonymous {share:6.2%} of it", flush=True)
    return bool(found["first"] <= MOST_SECONDS and found["anonymous_gb"] <= MOST_SHARE * max(size, SMALL_GB))


def opened(path: Path, loader: str) -> dict[str, float]:
    """Seconds of both openings and of the first use; anonymous memory of the second opening."""
    torch.set_num_threads(1)
    RESIDENCY.choices = MemoryChoices(memory="stream")
    import_module("sigmagraph.engine.models.text.encoders")  # which a loader imports late: seconds, of transformers
    load = LOADERS[loader]
    began = time.process_time()
    kept = load(path)
    first = time.process_time() - began
    before, began = anonymous_gb(), time.process_time()
    value = load(path)
    again, held = time.process_time() - began, anonymous_gb() - before
    assert kept is not value
    began = time.process_time()
    use(value)
    return {"first": first, "again": again, "use": time.process_time() - began, "anonymous_gb": max(0.0, held)}


def use(value: Any) -> None:
    """Make the network, and read a block of it as its layers do."""
    (recipe,) = recipes_of(value) if isinstance(value, Clip) else (value.recipe,)
    with recipe.use():
        mark = f"{recipe.blocks}0."
        chosen = [stored for name, stored in recipe.weights.items() if not recipe.blocks or name.startswith(mark)]
        assert chosen, mark
        for stored in chosen:
            stored.on(recipe.placement.device).to(recipe.placement.dtype, copy=True)


LOADERS: dict[str, Callable[[Path], object]] = {
    "model": load_diffusion_model,
    "text": lambda path: load_text_encoders([path]),
    "vae": load_vae,
    "control": load_controlnet,
}

if __name__ == "__main__":
    main()
