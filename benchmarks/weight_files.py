"""Quantised T5 beside its 16-bit file, and `sigmagraph convert` beside the disk and the core it runs on.

    python -m benchmarks.weight_files FOLDER [--rounds 5] [--only encode|convert]     # needs 6 GB there for a while

`encode`: T5-XXL's widths, three of its 24 layers, random weights, 77 tokens, streamed from the file as on machines too
small for it. Times alternate between the forms, in seconds of processor time; the ratio is to the bfloat16 file.

`convert`: a transformer of Medium's width from bfloat16, on one thread. `arithmetic` is that alone, on numbers in
memory; `disk` is as many bytes from memory until they are on the disk, as the command's are. `share` is the larger of
two: arithmetic over the command in seconds of processor time, disk over the command by the clock. Exit code 1 where a
ratio is above 2.5 or a share below 0.8.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.models.arch import MMDiT, MMDiTShape
from sigmagraph.engine.models.files.convert import FP8, PIECE, WRITTEN
from sigmagraph.engine.models.files.ggml import FORMATS, Format
from sigmagraph.engine.models.files.gguf import ARCHITECTURE, llama_name
from sigmagraph.engine.models.files.quantise import SHRINK
from sigmagraph.engine.models.files.write import Outgoing, in_pieces, write_gguf, write_safetensors
from sigmagraph.engine.models.load import load_text_encoders
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY

WIDTH, HEADS, FEED_FORWARD, LAYERS, VOCABULARY, TOKENS = 4096, 64, 10240, 3, 512, 77
SHAPE = MMDiTShape(8, 1536, 2048, 4096, 192)
FORMS = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
SCALES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
"""Where a block has its float16 scales; at 0 otherwise."""
MOST_RATIO, LEAST_SHARE = 2.5, 0.8
DENSE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TARGETS = ("fp16", "fp32", "fp8_scaled", *WRITTEN)


def main() -> None:
    """Both parts, each row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("encode", "convert"), default=None)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    kept = [measure(given.folder, given.rounds) for name, measure in PARTS.items() if given.only in (None, name)]
    raise SystemExit(0 if all(kept) else 1)


def encode(folder: Path, rounds: int) -> bool:
    """Every form of T5 in turn."""
    RESIDENCY.choices = MemoryChoices(memory="stream", text="fp32")
    paths = {"bf16": _t5(folder, None), **{form: _t5(folder, _named(form)) for form in FORMS}}
    ids = torch.randint(0, VOCABULARY, (1, TOKENS))
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds + 1):
        for name, path in paths.items():
            encoder = load_text_encoders([path]).encoders["t5xxl"]
            began = time.process_time()
            encoder.encode(ids)
            taken[name].append(time.process_time() - began)
    for path in paths.values():
        path.unlink()
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}  # the first reads the pages
    for name, seconds in medians.items():
        print(f"T5, 3 of 24 layers, {name:5} {seconds:6.2f} s  x {seconds / medians['bf16']:.2f}", flush=True)
    return max(medians.values()) <= MOST_RATIO * medians["bf16"]


def convert(folder: Path, rounds: int) -> bool:
    """Every target in turn; the three kinds of time alternate."""
    source = _transformer(folder)
    shares = []
    for target in TARGETS:
        runs, size = list[tuple[float, float, float, float]](), 0
        for _ in range(rounds):
            wall, processor, size = _converted(source, folder, target)
            runs.append((wall, processor, _core(source, target), _disk(folder, size)))
        wall, processor, core, disk = (min(times) for times in zip(*runs, strict=True))
        shares.append(max(core / processor, disk / wall))
        print(
            f"convert to {target:10} {size / 1e9:5.2f} GB {wall:6.2f} s, {processor:5.2f} of processor; "
            f"arithmetic {core:5.2f} of processor, disk {disk:5.2f} s: share {shares[-1]:.2f}",
            flush=True,
        )
    source.unlink()
    return min(shares) >= LEAST_SHARE


def _named(form: str) -> Format:
    return next(known for known in FORMATS.values() if known.name == form)


def _t5(folder: Path, form: Format | None) -> Path:
    """A T5 encoder of random weights: matrices in bfloat16, or in blocks."""
    tensors = list(_t5_tensors(form))
    if form is None:
        return write_safetensors(folder, ["t5.safetensors"], tensors, {}, replaces=True)
    return write_gguf(folder, [f"t5-{form.name}.gguf"], tensors, {ARCHITECTURE: "t5encoder"}, replaces=True)


def _t5_tensors(form: Format | None) -> Iterator[Outgoing]:
    for name, shape in _t5_shapes():
        is_matrix = min(shape) > HEADS and len(shape) == 2
        called = name if form is None else llama_name(name)
        if form is not None and is_matrix:
            yield Outgoing(called, shape, torch.uint8, partial(_blocks, form, shape), form)
        else:
            dtype = torch.bfloat16 if is_matrix else torch.float32
            yield Outgoing(called, shape, dtype, partial(_drawn, shape, dtype))


def _t5_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "shared.weight", (VOCABULARY, WIDTH)
    yield "encoder.final_layer_norm.weight", (WIDTH,)
    yield "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, HEADS)
    for layer in range(LAYERS):
        block = f"encoder.block.{layer}.layer."
        yield from ((f"{block}{at}.layer_norm.weight", (WIDTH,)) for at in (0, 1))
        yield from ((f"{block}0.SelfAttention.{letter}.weight", (WIDTH, WIDTH)) for letter in "qkvo")
        yield from ((f"{block}1.DenseReluDense.{wi}.weight", (FEED_FORWARD, WIDTH)) for wi in ("wi_0", "wi_1"))
        yield f"{block}1.DenseReluDense.wo.weight", (WIDTH, FEED_FORWARD)


def _blocks(form: Format, shape: tuple[int, ...]) -> list[Tensor]:
    """Random blocks whose scales are ordinary numbers."""
    count = torch.Size(shape).numel() // form.size
    made = torch.randint(0, 256, (count, form.bytes_), dtype=torch.uint8)
    for at in SCALES.get(form.name, (0,)):
        made[:, at : at + 2] = (torch.randn(count, 1) * 0.01).half().view(torch.uint8)
    return [made]


def _drawn(shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    return [(torch.randn(shape) * 0.02).to(dtype)]


def _transformer(folder: Path) -> Path:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in MMDiT(SHAPE).state_dict().items()}

    tensors = [
        Outgoing(name, shape, torch.bfloat16, partial(_drawn, shape, torch.bfloat16)) for name, shape in shapes.items()
    ]
    return write_safetensors(folder, ["transformer.safetensors"], tensors, {}, replaces=True)


def _converted(source: Path, folder: Path, target: str) -> tuple[float, float, int]:
    """Seconds until the command's file is on the disk, those of the processor, and the bytes it wrote."""
    out = folder / ("converted" + (".gguf" if target.startswith("gguf") else ".safetensors"))
    began, worked = time.perf_counter(), time.process_time()
    done = CliRunner().invoke(app, ["convert", str(source), "--to", target, "--out", str(out)])
    processor = time.process_time() - worked
    assert done.exit_code == 0, done.output
    with out.open("rb") as written:
        os.fsync(written.fileno())
    wall, size = time.perf_counter() - began, out.stat().st_size
    out.unlink()
    return wall, processor, size


def _core(source: Path, target: str) -> float:
    """The arithmetic alone, for as many numbers as the file has, on some that lie in memory."""
    elements = source.stat().st_size // 2
    values = (torch.randn(128 * PIECE) * 0.02).bfloat16()
    work = _arithmetic(target)
    began = time.process_time()
    for piece in in_pieces(values, PIECE):
        work(piece)
    return (time.process_time() - began) * elements / values.numel()


def _arithmetic(target: str) -> Callable[[Tensor], object]:
    if target in WRITTEN:
        shrink = SHRINK[WRITTEN[target].name]
        return lambda piece: shrink(piece.float().view(-1, 32))
    if target == "fp8_scaled":
        return lambda piece: (piece.aminmax(), (piece.float() / torch.tensor(0.01)).to(FP8))
    return lambda piece: piece.to(DENSE[target])


def _disk(folder: Path, size: int) -> float:
    """So many bytes from memory until they are on the disk."""
    piece = bytes(torch.randint(0, 256, (16 * PIECE,), dtype=torch.uint8).numpy())
    began = time.perf_counter()
    with (folder / "bytes").open("wb", buffering=0) as written:
        for start in range(0, size, len(piece)):
            written.write(memoryview(piece)[: size - start])
        os.fsync(written.fileno())
    seconds = time.perf_counter() - began
    (folder / "bytes").unlink()
    return seconds


PARTS = {"encode": encode, "convert": convert}


if __name__ == "__main__":
    main()
