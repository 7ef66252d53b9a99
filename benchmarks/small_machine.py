"""SD3.5 Medium and T5-XXL at full size, random weights, on a small machine: what opens, what fits, what is said.

    python -m benchmarks.small_machine FOLDER            # writes 34 GB there once

Files in bfloat16 and float16. Each row is a process of its own; those with a limit run in a control group made for it
(root, version 1 or 2), `ulimit` under a limit of its address space. `open` is ours, `peer` diffusers' from_pretrained
of the same network. A 512 x 512 picture is two guided steps from an encoded prompt to a
decoded image. `work_s` is the processor's time of a row's process. Exit code 1 where a bound is missed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # rows measure what is imported
    from torch import nn

GIB = 2**30
FILES = {"bf16": "BF16", "fp16": "F16"}
BLOCK_ELEMENTS = 8 * 1024 * 1024
PEER = "diffusers.{}/diffusion_pytorch_model.safetensors"
# What is done, with files of which precision, in how many GiB (None: as many as there are).
ROWS: tuple[tuple[str, str, int | None], ...] = (
    *(("open", "bf16", None), ("peer", "bf16", None), ("open", "bf16", None), ("peer", "bf16", None)),
    *(("refused", "bf16", 3), ("ulimit", "bf16", None), ("decode", "bf16", 2)),
    *(("picture", "bf16", 8), ("picture", "fp16", 8)),
)
# What a row must find; theirs only that ours, which has to keep the row above, takes no longer and no more.
KEEPS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "open": lambda found: found["seconds"] <= 1 and found["anonymous_share"] <= 0.05,
    "peer": lambda found: found["seconds"] > 1 and found["peak_anonymous_gb"] > 0.25,
    "refused": lambda found: "the plan: " in found.get("said", "") and found["read_gb"] <= 0.1,
    "ulimit": lambda found: (
        "memory" in found["open"]
        and found["decode"] == "done"
        and "nothing was tried" in found["larger"]
        and found["larger_s"] <= 5
    ),
    "decode": lambda found: found["peak_anonymous_gb"] < 2.1,
    "picture": lambda found: found["peak_anonymous_gb"] < 8.5,
}
FILES_OF = {
    "open": ("medium",),
    "peer": ("peer",),
    "refused": ("medium",),
    "ulimit": ("medium", "vae"),
    "decode": ("vae",),
    "picture": ("medium", "t5xxl", "vae"),
}


def main() -> None:
    """Write the files where they are missing, then every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=tuple(CHILDREN), default=None)
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "PRECISION"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(CHILDREN[given.child[0]](given.folder, given.child[1])))
        return
    missed = False
    for what, precision, limit_gib in ROWS:
        if given.only in (None, what):
            written(given.folder, precision, FILES_OF[what])
            found = ran(given.folder, what, precision, limit_gib)
            keeps = "ended" not in found and KEEPS[what](found)
            missed |= not keeps
            told = " ".join(f"{name} {value}" for name, value in found.items())
            room = f"in {limit_gib} GiB" if limit_gib else "unlimited"
            print(f"{what:8} {precision} {room:10} {'kept  ' if keeps else 'MISSED'} {told}", flush=True)
    raise SystemExit(missed)


def written(folder: Path, precision: str, names: tuple[str, ...]) -> None:
    """Those of these files that are missing, of the shapes that the modules have."""
    import torch
    from transformers import T5Config, T5EncoderModel

    from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape

    shape = MMDiTShape(24, 1536, 2048, 4096, 384, dual_attention_blocks=frozenset(range(13)))
    sizes = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        modules = {"medium": MMDiT(shape), "t5xxl": T5EncoderModel(config), "vae": Autoencoder(VaeShape())}
    for name in names:
        path = folder / (PEER if name == "peer" else name + ".{}.safetensors").format(precision)
        if not path.is_file():
            module = modules[name] if name != "peer" else peer(path.parent)
            shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
            shapes.pop("encoder.embed_tokens.weight", None)
            write_random(path, shapes, FILES[precision])


def peer(folder: Path) -> "nn.Module":
    """The network of diffusers, of the same size and without weights; its configuration is written to the folder."""
    import torch
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"):
        network = SD3Transformer2DModel(
            num_layers=24,
            num_attention_heads=24,
            attention_head_dim=64,
            sample_size=128,
            in_channels=16,
            out_channels=16,
            joint_attention_dim=4096,
            pooled_projection_dim=2048,
            caption_projection_dim=1536,
            pos_embed_max_size=384,
            qk_norm="rms_norm",
            dual_attention_layers=tuple(range(13)),
        )
    network.save_config(folder)
    return network


def write_random(path: Path, shapes: Mapping[str, tuple[int, ...]], stored: str) -> None:
    """Matrices normal and scaled by fan-in, from one block of numbers over and over; norms one, biases zero."""
    import torch

    dtype = {"BF16": torch.bfloat16, "F16": torch.float16}[stored]
    block = torch.randn(BLOCK_ELEMENTS, generator=torch.Generator().manual_seed(0))
    head: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        head[name], at = {"dtype": stored, "shape": list(shape), "data_offsets": [at, at + size]}, at + size
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with path.with_suffix(".part").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            count = torch.Size(shape).numel()
            fan_in = torch.Size(shape[1:]).numel()
            if len(shape) > 1:
                values = (block * (0.5 / fan_in**0.5)).to(dtype)
            else:
                values = torch.full((BLOCK_ELEMENTS,), float(name.endswith("weight")), dtype=dtype)
            bytes_ = values.view(torch.uint8).numpy().data
            for start in range(0, count, BLOCK_ELEMENTS):
                file.write(bytes_[: 2 * min(BLOCK_ELEMENTS, count - start)])
    path.with_suffix(".part").rename(path)


def ran(folder: Path, what: str, precision: str, limit_gib: int | None) -> dict[str, Any]:
    """One row in a process of its own, inside a control group where there is a limit."""
    command = [sys.executable, "-m", "benchmarks.small_machine", str(folder), "--child", what, precision]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with limited(limit_gib) as enter:
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=enter)  # one write
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return {"ended": done.returncode, "said": (done.stderr.strip().splitlines() or ["nothing"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found | {"work_s": round(worked, 1)}


@contextmanager
def limited(limit_gib: int | None) -> Iterator[Any]:
    """What a child calls to enter a control group with so much memory."""
    if limit_gib is None:
        yield None
        return
    is_v1 = Path("/sys/fs/cgroup/memory").is_dir()
    group = Path("/sys/fs/cgroup/memory" if is_v1 else "/sys/fs/cgroup") / f"sigmagraph-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit_gib * GIB))
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def opened(folder: Path, precision: str) -> dict[str, Any]:
    """Seconds until the network could compute, and what that takes beside the file's pages."""
    from sigmagraph.engine.models import load_diffusion_model

    path, before = folder / f"medium.{precision}.safetensors", anonymous_gb()
    with watched() as peak:
        began = time.perf_counter()
        model = load_diffusion_model(path)
        with model.recipe.use():
            took = time.perf_counter() - began
    share = (anonymous_gb() - before) / (path.stat().st_size / 1e9)
    return _opened(took, peak, before) | {"anonymous_share": round(share, 3)}


def opened_by_peer(folder: Path, precision: str) -> dict[str, Any]:
    """The same of diffusers' from_pretrained, in the same precision."""
    import torch
    from diffusers import SD3Transformer2DModel

    before = anonymous_gb()
    with watched() as peak:
        began = time.perf_counter()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        SD3Transformer2DModel.from_pretrained((folder / PEER.format(precision)).parent, torch_dtype=dtype)
        took = time.perf_counter() - began
    return _opened(took, peak, before)


def _opened(took: float, peak: list[float], before: float) -> dict[str, Any]:
    anonymous = max(0.0, peak[0] - before)
    return {
        "seconds": round(took, 2),
        "peak_anonymous_gb": round(anonymous, 2),
        "peak_rss_gb": round(_status("VmHWM"), 2),
    }


def refused(folder: Path, precision: str) -> dict[str, Any]:
    """The refusal, and how much of any file had been read by then."""
    from sigmagraph.engine.errors import OutOfMemory
    from sigmagraph.engine.models import load_diffusion_model

    before = read_gb()
    try:
        load_diffusion_model(folder / f"medium.{precision}.safetensors")
    except OutOfMemory as error:
        return {"read_gb": round(read_gb() - before, 3), "said": str(error)}
    return {"refused": "no"}


def under_ulimit(folder: Path, precision: str) -> dict[str, Any]:
    """With 0.5 GB of address space left: what opening 4.9 GB says, and what decoding 512 and 1024 does."""
    import torch

    from sigmagraph.engine.errors import OutOfMemory
    from sigmagraph.engine.models import load_diffusion_model, load_vae

    vae = load_vae(folder / f"vae.{precision}.safetensors")
    with vae.recipe.use():
        resource.setrlimit(resource.RLIMIT_AS, (int(_status("VmSize") * 1e9) + 5 * 10**8, resource.RLIM_INFINITY))
    said, took = [], []
    for attempt in (
        lambda: load_diffusion_model(folder / f"medium.{precision}.safetensors"),
        lambda: vae.decode(torch.zeros(1, 16, 64, 64)),
        lambda: vae.decode(torch.zeros(1, 16, 128, 128)),
    ):
        began = time.perf_counter()
        try:
            attempt()
            said.append("done")
        except OutOfMemory as error:
            said.append(str(error))
        took.append(time.perf_counter() - began)
    return {"open": said[0], "decode": said[1], "larger": said[2], "larger_s": round(took[2], 2)}


def decoded(folder: Path, precision: str) -> dict[str, Any]:
    """A picture of 1024 x 1024 from a latent: seconds, the most taken beside file pages, and in which way."""
    import torch

    from sigmagraph.engine.models import autoencoding, load_vae

    ways: list[str] = []
    autoencoding.log.setLevel("INFO")
    autoencoding.log.addFilter(lambda record: not ways.append(record.getMessage()))
    vae, began = load_vae(folder / f"vae.{precision}.safetensors"), time.perf_counter()
    with torch.inference_mode(), watched() as peak:
        image = vae.decode(torch.randn(1, 16, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert image.shape == (1, 1024, 1024, 3)
    took = time.perf_counter() - began
    return {"seconds": round(took, 1), "peak_anonymous_gb": round(peak[0], 2), "way": "; ".join(ways) or "whole"}


def pictured(folder: Path, precision: str) -> dict[str, Any]:
    """A picture, its seconds and the most that was taken beside file pages."""
    import torch

    from sigmagraph.engine.models import Conditioning, load_diffusion_model, load_text_encoders, load_vae
    from sigmagraph.engine.sampling import ComfyNoise, Sampling, find_schedule, find_solver, run_sigmas

    began = time.perf_counter()
    model, vae, clip = (
        load_diffusion_model(folder / f"medium.{precision}.safetensors"),
        load_vae(folder / f"vae.{precision}.safetensors"),
        load_text_encoders([folder / f"t5xxl.{precision}.safetensors"]),
    )
    with torch.inference_mode(), watched() as peak:
        hidden = clip.encoders["t5xxl"].encode(torch.arange(2, 79)[None]).hidden.float()
        text_s = time.perf_counter() - began
        context = torch.cat([torch.zeros(1, 77, 4096), hidden], dim=1)
        entry = Conditioning(context, torch.zeros(1, 2048))
        sigmas = run_sigmas(find_schedule("normal"), model.parameterisation.levels, 2, 1.0, False)
        guided = model.guided(entry, entry.zeroed(), 4.5)
        noise, euler = ComfyNoise(1), find_solver("euler")
        latent = Sampling(guided, torch.zeros(1, 16, 64, 64), sigmas, model.parameterisation, euler, noise=noise).run()
        steps_s = time.perf_counter() - began - text_s
        image = vae.decode(model.spec.latent_format.to_vae(latent))
    assert image.shape == (1, 512, 512, 3)
    assert image.isfinite().all()
    whole_s = time.perf_counter() - began
    figures = {"seconds": whole_s, "text_s": text_s, "steps_s": steps_s, "peak_anonymous_gb": peak[0]}
    return {name: round(value, 2) for name, value in figures.items()} | {"model": str(model.placement.dtype)}


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024 / 1e9


def anonymous_gb() -> float:
    """Memory of this process that is no file's page."""
    return _status("RssAnon")


@contextmanager
def watched() -> Iterator[list[float]]:
    """The highest anonymous memory seen in the block, looked at fifty times a second."""
    peak, is_over = [0.0], Event()

    def look() -> None:
        while not is_over.wait(0.02):
            peak[0] = max(peak[0], anonymous_gb())

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


def read_gb() -> float:
    """Pages of mapped files, and what was read by calls."""
    line = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar:"))
    return _status("RssFile") + int(line.split()[1]) / 1e9


CHILDREN = {
    "open": opened,
    "peer": opened_by_peer,
    "refused": refused,
    "ulimit": under_ulimit,
    "decode": decoded,
    "picture": pictured,
}

if __name__ == "__main__":
    main()
