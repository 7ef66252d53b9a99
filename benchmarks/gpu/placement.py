"""Files loaded to the device."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import MEDIUM, TINY_MEDIUM
from sigmagraph.engine.models.arch import MMDiT
from sigmagraph.engine.models.load import load_diffusion_model


def loading(bench: Bench) -> None:
    """A file of SD3.5 Medium's size to the device, its pages in memory, beside safetensors' own loader."""
    from safetensors.torch import load_file

    with TemporaryDirectory() as folder:
        path = Path(folder) / "medium.safetensors"
        size = _write_random(path, MMDiT, bench.is_dry)
        first, again = (bench.once(lambda: load_diffusion_model(path, bench.device).network) for _ in range(2))
        plain = bench.once(lambda: load_file(path, device=str(bench.device)))
    rate = f"{size / again / 1e9:.1f} GB/s"
    text = f"{size / 1e9:.1f} GB: first {first:.2f} s, again {again:.2f} s ({rate}); load_file {plain:.2f} s"
    bench.say("diffusion model", text, first_s=first, again_s=again, load_file_s=plain)


def _write_random(path: Path, build: type[MMDiT], is_tiny: bool) -> int:
    """A safetensors file of bfloat16 noise in the published layout; its size in bytes."""
    with torch.device("meta"):
        sizes = {name: tensor.shape for name, tensor in build(TINY_MEDIUM if is_tiny else MEDIUM).state_dict().items()}
    header: dict[str, object] = {}
    end = 0
    for name, shape in sizes.items():
        start, end = end, end + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = torch.randn(1 << 22).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, end, len(noise)):
            file.write(noise[: end - start])
    return end
