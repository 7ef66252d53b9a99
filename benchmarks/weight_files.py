"""Quantised T5 beside its 16-bit file, and `sigmagraph convert` beside the disk and the core it runs on.

    python -m benchmarks.weight_files FOLDER [--rounds 5] [--only encode|convert]     # needs 6 GB there for a while

`encode`: T5-XXL's widths, three of its 24 layers, random weights, 77 tokens, streamed from the file as on machines too
small for it. Times alternate between the forms, in seconds of processor time; the ratio is to the bfloat16 file.

`convert`: a transformer of Medium's width from bfloat16, with a VAE for --split and --join; arithmetic on one thread.
`command` runs until it returns; `copy` reads as many bytes as it reads and writes as many as it writes, a MiB at a
time, and like it syncs nothing; `core` is its arithmetic in a bare loop over the same tensors in memory, in as many
passes (float8: the largest of a matrix, then its numbers). They take turns, each first in every other round, and the
least of the rounds counts. What is read lies in the page cache. Before `command` and `copy` a file as large as what
they write is written and removed, and the disk is idle: on a virtual machine pages that were free for some seconds are
the host's, and writing to them takes up to ten times as long. The bound is the slower of copy and core for dense
precisions, --split and --join, and core for what is quantised. The share is the bound over the command, by the clock;
and in seconds of processor time, which a busy machine does not stretch, of the busier of the command's two threads. The
larger is judged. `memory` is the most it allocated beyond what there was.
Exit code 1 where a ratio is above 2.5 or a share below 0.8.
"""

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import torch
from torch import Tensor
from typer.testing import CliRunner

from benchmarks.sparse_files import random_blocks
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.models.arch import Autoencoder, MMDiT, MMDiTShape, VaeShape
from sigmagraph.engine.models.files.convert import FP8, PIECE, SHRUNK, WRITTEN
from sigmagraph.engine.models.files.ggml import FORMATS, Format
from sigmagraph.engine.models.files.gguf import ARCHITECTURE, llama_name
from sigmagraph.engine.models.files.quantise import SHRINK
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.files.write import Outgoing, Room, in_pieces, write_gguf, write_safetensors
from sigmagraph.engine.models.load import load_text_encoders
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY

WIDTH, HEADS, FEED_FORWARD, LAYERS, VOCABULARY, TOKENS = 4096, 64, 10240, 3, 512, 77
SHAPE = MMDiTShape(8, 1536, 2048, 4096, 192)
FORMS = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
MOST_RATIO, LEAST_SHARE = 2.5, 0.8
DENSE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TARGETS = (*DENSE, "fp8_scaled", *WRITTEN)


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
    """Every target in turn, then both layouts; the kinds of time alternate."""
    source = _transformer(folder)
    vae, whole = _vae(folder), folder / "whole.safetensors"
    shares = [_share(folder, rounds, Conversion(target, [source], ["--to", target])) for target in TARGETS]
    shares.append(_share(folder, rounds, Conversion("--join", [source, vae], ["--join"], "joined.safetensors")))
    _command(Conversion("--join", [source, vae], ["--join"], whole.name), folder)
    shares.append(_share(folder, rounds, Conversion("--split", [whole], ["--split"], "models")))
    for path in (source, vae, whole):
        path.unlink()
    return min(shares) >= LEAST_SHARE


@dataclass(frozen=True)
class Conversion:
    """What the command is asked for. `out` is what it writes, within the benchmark's folder; None: by the target."""

    name: str
    sources: Sequence[Path]
    options: Sequence[str]
    out: str | None = None

    @property
    def written(self) -> str:
        """The file or folder that it makes."""
        return self.out or ("converted" + (".gguf" if self.name.startswith("gguf") else ".safetensors"))


def _share(folder: Path, rounds: int, asked: Conversion) -> float:
    """Print one row; the bound's time over the command's."""
    commands, copies, cores = list[Taken](), list[Taken](), list[Taken]()
    held, read = 0, sum(path.stat().st_size for path in asked.sources)
    _command(asked, folder)
    size = _cleared(folder / asked.written)

    def command() -> None:
        nonlocal held
        _ready(folder, size)
        with Allocated() as allocated:
            commands.append(_taken(lambda: _command(asked, folder)))
        held = max(held, allocated.most)
        _cleared(folder / asked.written)

    def copy() -> None:
        _ready(folder, size)
        copies.append(_taken(partial(_copy, asked.sources, size, folder / "copy")))
        _cleared(folder / "copy")

    for number in range(rounds):
        for work in (command, copy) if number % 2 else (copy, command):
            work()
        cores.append(_taken(partial(_core, _in_memory(asked.sources), asked.name)))
    whole, copied, core = map(_least, (commands, copies, cores))
    is_quantised = asked.name.startswith(("fp8", "gguf"))
    bound = core if is_quantised else Taken(*map(max, copied, core))
    shares = bound.clock / whole.clock, bound.busiest / whole.busiest
    print(
        f"convert {asked.name:10} {read / 1e9:5.2f} -> {size / 1e9:5.2f} GB; command, copy, core: "
        f"{whole.clock:5.2f} {copied.clock:5.2f} {core.clock:5.2f} s, share {shares[0]:.2f}; "
        f"of processor {whole.busiest:5.2f} {copied.busiest:5.2f} {core.busiest:5.2f} s, share {shares[1]:.2f}; "
        f"memory {held / 2**20:.0f} MiB",
        flush=True,
    )
    return max(shares)


class Taken(NamedTuple):
    """Seconds by the clock, and of processor time of the busier one: this thread, or all others together."""

    clock: float
    busiest: float


def _taken(work: Callable[[], object]) -> Taken:
    clock, here, everywhere = time.perf_counter(), time.thread_time(), time.process_time()
    work()
    here, everywhere = time.thread_time() - here, time.process_time() - everywhere
    return Taken(time.perf_counter() - clock, max(here, everywhere - here))


def _least(rounds: Sequence[Taken]) -> Taken:
    return Taken(min(one.clock for one in rounds), min(one.busiest for one in rounds))


def _ready(folder: Path, size: int) -> None:
    """Free pages for `size` bytes that the host has given, and nothing that waits for the disk."""
    os.sync()
    path = folder / "touched"
    with path.open("wb", buffering=0) as file:
        for left in range(size, 0, -(1 << 20)):
            file.write(bytes(min(1 << 20, left)))
    path.unlink()


def _command(asked: Conversion, folder: Path) -> None:
    out = folder / asked.written
    arguments = ["convert", *map(str, asked.sources), *asked.options, "--out", str(out), "--force"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


def _cleared(path: Path) -> int:
    """The bytes of a file, or of a folder's files, which are removed."""
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    size = sum(one.stat().st_size for one in files)
    for one in files:
        one.unlink()
    return size


class Allocated:
    """The most anonymous memory the process had within a block, beyond what it had before; looked at every 5 ms."""

    most = 0

    def __enter__(self) -> "Allocated":
        ctypes.CDLL(None).malloc_trim(0)  # or what earlier rounds freed is used again, unseen
        self._before, self._is_over = _anonymous(), Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            self.most = max(self.most, _anonymous() - self._before)


def _anonymous() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


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


def _blocks(form: Format, shape: tuple[int, ...], _: Room) -> list[Tensor]:
    return [random_blocks(form, torch.Size(shape).numel() // form.size)]


def _drawn(shape: tuple[int, ...], dtype: torch.dtype, _: Room) -> list[Tensor]:
    return [(torch.randn(shape) * 0.02).to(dtype)]


def _transformer(folder: Path) -> Path:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in MMDiT(SHAPE).state_dict().items()}

    tensors = [
        Outgoing(name, shape, torch.bfloat16, partial(_drawn, shape, torch.bfloat16)) for name, shape in shapes.items()
    ]
    return write_safetensors(folder, ["transformer.safetensors"], tensors, {}, replaces=True)


def _vae(folder: Path) -> Path:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Autoencoder(VaeShape()).state_dict().items()}
    tensors = [
        Outgoing(name, shape, torch.bfloat16, partial(_drawn, shape, torch.bfloat16)) for name, shape in shapes.items()
    ]
    return write_safetensors(folder, ["vae.safetensors"], tensors, {}, replaces=True)


def _in_memory(sources: Sequence[Path]) -> list[Tensor]:
    return [stored.read().clone() for path in sources for stored in open_weights(path).weights.values()]


def _core(weights: Sequence[Tensor], target: str) -> None:
    """The arithmetic alone, in pieces as the command has them."""
    if target not in TARGETS:
        return
    work, elements = _arithmetic(target), SHRUNK if target in WRITTEN else PIECE
    for values in weights:
        if target == "fp8_scaled":
            for piece in in_pieces(values, elements):
                piece.aminmax()
        for piece in in_pieces(values, elements):
            work(piece)


def _arithmetic(target: str) -> Callable[[Tensor], object]:
    if target in WRITTEN:
        shrink = SHRINK[WRITTEN[target].name]
        return lambda piece: shrink(piece.float().view(-1, 32))
    wide, scale, dtype = torch.empty(PIECE), torch.tensor(0.01), DENSE.get(target, FP8)
    made = torch.empty(PIECE, dtype=dtype)

    def into_one_place(piece: Tensor) -> None:
        exact = wide[: piece.numel()].copy_(piece)
        made[: piece.numel()].copy_(exact.div_(scale) if dtype == FP8 else exact)

    return into_one_place


def _copy(sources: Sequence[Path], size: int, to: Path) -> None:
    """The sources' bytes read, and `size` bytes written to another file, a piece at a time."""
    buffer = memoryview(bytearray(1 << 20))
    read, done, left = sum(path.stat().st_size for path in sources), 0, size
    with to.open("wb", buffering=0) as written:
        for path in sources:
            with path.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    done += count
                    while left and size - left < size * done // read:
                        left -= written.write(buffer[:left])


PARTS = {"encode": encode, "convert": convert}


if __name__ == "__main__":
    main()
