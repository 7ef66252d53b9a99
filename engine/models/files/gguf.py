"""The header of a GGUF file, checked against the file's size before anything is allocated.

Knows the container (little-endian versions 2 and 3: metadata, names, shapes, offsets, then data) and the names that
llama.cpp gives T5's tensors. What a block of numbers means is in ggml.py. Nothing here reads a tensor.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sigmagraph.engine.errors import CorruptFile, MissingFile, RefusedFile
from sigmagraph.engine.models.files.ggml import DENSE, FORMATS, UNREAD, Format
from sigmagraph.engine.models.files.header import LARGEST_HEADER_BYTES, LARGEST_SIDE, MOST_TENSORS, TensorEntry

MAGIC = b"GGUF"
MOST_DIMENSIONS = 8
LONGEST_KEPT = 64  # elements of an array that is kept: shapes, not vocabularies
DEEPEST_ARRAY = 4
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "B",
    10: "Q",
    11: "q",
    12: "d",
}
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
ALIGNMENT, ARCHITECTURE = "general.alignment", "general.architecture"
SPLIT_COUNT = "split.count"  # of a file that was cut in parts
T5_ARCHITECTURES = ("t5", "t5encoder")


@dataclass(frozen=True, slots=True)
class Quantised:
    """Where a tensor of blocks lies; `shape` is that of its values."""

    format: Format
    shape: tuple[int, ...]
    blocks: TensorEntry


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """All tensors of one file by name, and its metadata: strings as they are, numbers in digits."""

    entries: Mapping[str, TensorEntry | Quantised]
    metadata: Mapping[str, str]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do; what cannot be opened does not."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def read_gguf(path: Path) -> GgufHeader:
    """Parse and check the header of `path`. Raises `MissingFile`, `RefusedFile` (a kind not read), `CorruptFile`."""
    try:
        with path.open("rb") as file:
            return _Header(path, file, path.stat().st_size).read()
    except (FileNotFoundError, IsADirectoryError):
        raise MissingFile(path, "there is no such file") from None
    except OSError as error:
        raise CorruptFile(path, f"cannot be read ({error.strerror})") from error


class _Header:
    """One pass over the header; no read reaches beyond the file, and no count is believed that the rest cannot hold."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size, self._at = path, file, size, 0

    def read(self) -> GgufHeader:
        self._take(len(MAGIC))
        version = self._number("I")
        if version not in (2, 3):
            raise RefusedFile(
                self._path, f"GGUF version {version:#x}; little-endian files of versions 2 and 3 are read"
            )
        tensors, pairs = self._count("Q", 24), self._count("Q", 13)
        if tensors > MOST_TENSORS:
            raise self._wrong(f"it names {tensors} tensors; at most {MOST_TENSORS} are read")
        values = self._metadata(pairs)
        if type(parts := values.get(SPLIT_COUNT)) is int and parts > 1:
            way_out = "join them with llama.cpp's `llama-gguf-split --merge`"
            raise RefusedFile(self._path, f"is one of {parts} parts of a GGUF file; {way_out}")
        listed = [self._tensor() for _ in range(tensors)]
        alignment = values.get(ALIGNMENT, 32)
        if type(alignment) is not int or not 1 <= alignment <= 2**20:
            raise self._wrong(f"{ALIGNMENT} is {alignment!r}")
        data = -(-self._at // alignment) * alignment
        names = [name for name, *_ in listed]
        if len(set(names)) != len(names):
            raise self._wrong("a tensor's name occurs twice")
        entries = {tensor[0]: self._entry(tensor, data, values) for tensor in listed}
        self._check_apart(entries)
        metadata = {name: str(value) for name, value in values.items() if not isinstance(value, tuple)}
        if metadata.get(ARCHITECTURE) in T5_ARCHITECTURES:
            entries = {t5_name(name): entry for name, entry in entries.items() if not name.startswith("dec.")}
        return GgufHeader(entries, metadata)

    def _metadata(self, pairs: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for _ in range(pairs):
            name = self._string()
            if name in values:
                raise self._wrong(f"metadata {name!r} occurs twice")
            values[name] = self._value(self._number("I"))
        return {name: value for name, value in values.items() if value is not None}

    def _value(self, kind: int, depth: int = 0) -> object:
        """One value; None for an array too long to be of use here, which is passed over."""
        if kind == STRING:
            return self._string()
        if kind in SCALARS:
            value = self._unpacked(SCALARS[kind])
            return bool(value) if kind == BOOL else value
        if kind != ARRAY or depth == DEEPEST_ARRAY:
            raise self._wrong(f"metadata of kind {kind}")
        inner = self._number("I")
        if inner in SCALARS:
            width = struct.calcsize(SCALARS[inner])
            length = self._count("Q", width)
            raw = self._take(length * width)
            return struct.unpack(f"<{length}{SCALARS[inner]}", raw) if length <= LONGEST_KEPT else None
        for _ in range(self._count("Q", 8)):
            self._value(inner, depth + 1)
        return None

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("I")
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise self._wrong(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]  # rows last in the file
        if any(side > LARGEST_SIDE for side in shape):
            raise self._wrong(f"tensor {name!r}: {shape!r} are not sizes")
        return name, shape, self._number("I"), self._number("Q")

    def _entry(
        self, told: tuple[str, tuple[int, ...], int, int], data: int, values: Mapping[str, object]
    ) -> TensorEntry | Quantised:
        name, shape, kind, offset = told
        form, dtype, start = FORMATS.get(kind), DENSE.get(kind), data + offset
        if form is None and dtype is None:
            known = ", ".join(["F32", "F16", "BF16", *(known.name for known in FORMATS.values())])
            found = UNREAD.get(kind, f"number {kind}")
            raise RefusedFile(self._path, f"tensor {name!r} is stored as {found}; what is read: {known}")
        columns = shape[-1] if shape else 1
        if form is not None and columns % form.size:
            raise self._wrong(f"tensor {name!r}: rows of {columns} are not whole blocks of {form.name} ({form.size})")
        width = columns // form.size * form.bytes_ if form is not None else 0
        stored = (prod(shape[:-1]), width) if form is not None else shape
        size = prod(stored) * (1 if dtype is None else dtype.itemsize)
        if not size and prod(side or 1 for side in shape) > LARGEST_SIDE:
            raise self._wrong(f"tensor {name!r}: shape {list(shape)} is nothing that can be addressed")
        if offset % 8 or start + size > self._size:  # writers pad to 32; a view wants a multiple of the item's size
            raise self._wrong(
                f"tensor {name!r}: bytes {start} to {start + size} of a file of {self._size} (truncated?)"
            )
        shape = self._original(name, shape, values)
        if form is None:
            return TensorEntry(dtype or torch.uint8, shape, start, start + size)
        return Quantised(form, shape, TensorEntry(torch.uint8, stored, start, start + size))

    def _original(self, name: str, shape: tuple[int, ...], values: Mapping[str, object]) -> tuple[int, ...]:
        """The shape before it was folded to what the format's writers can hold."""
        told = values.get(ORIGINAL_SHAPE + name)
        if told is None:
            return shape
        sides = told if isinstance(told, tuple) else ()
        is_shape = all(type(side) is int and 0 <= side <= LARGEST_SIDE for side in sides)
        if not sides or not is_shape or prod(sides) != prod(shape):
            raise self._wrong(f"{ORIGINAL_SHAPE}{name} is {told!r} for a tensor of {list(shape)}")
        return sides

    def _check_apart(self, entries: Mapping[str, TensorEntry | Quantised]) -> None:
        """No byte belongs to two tensors, so no header makes more of a file than it holds."""
        places = [(entry if isinstance(entry, TensorEntry) else entry.blocks, name) for name, entry in entries.items()]
        end = 0
        for place, name in sorted(places, key=lambda item: (item[0].start, item[0].stop)):
            if place.start < end:
                raise self._wrong(f"tensor {name!r} overlaps the one before it (byte {place.start})")
            end = place.stop

    def _string(self) -> str:
        raw = self._take(self._count("Q", 1))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")  # vocabularies hold bytes that are no text

    def _count(self, code: str, least: int) -> int:
        """A number of things of at least so many bytes each."""
        count = self._number(code)
        if count * least > self._size - self._at:
            raise self._wrong(f"byte {self._at}: {count} entries do not fit into the rest of the file (truncated?)")
        return count

    def _number(self, code: str) -> int:
        value: int = self._unpacked(code)
        return value

    def _unpacked(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize(code)))[0]

    def _take(self, size: int) -> bytes:
        if self._at + size > min(self._size, LARGEST_HEADER_BYTES):
            raise self._wrong(f"its header goes on behind byte {self._at} of {self._size} (truncated?)")
        self._at += size
        return self._file.read(size)

    def _wrong(self, what: str) -> CorruptFile:
        return CorruptFile(self._path, f"not a sound GGUF file: {what}")


T5_OUTER: Mapping[str, str] = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
}
T5_BLOCK: Mapping[str, str] = {
    **{f"attn_{letter}": f"layer.0.SelfAttention.{letter}" for letter in "qkvo"},
    "attn_norm": "layer.0.layer_norm",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}


def t5_name(name: str) -> str:
    """The name of a T5 tensor in transformers, for llama.cpp's; one that is not known stays."""
    module, _, leaf = name.rpartition(".")
    if module in T5_OUTER:
        return f"{T5_OUTER[module]}.{leaf}"
    block = re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)", module)
    if block is None or block[2] not in T5_BLOCK:
        return name
    return f"encoder.block.{block[1]}.{T5_BLOCK[block[2]]}.{leaf}"


def llama_name(name: str) -> str:
    """llama.cpp's name of a T5 tensor, for transformers'."""
    module, _, leaf = name.rpartition(".")
    outer = {theirs: ours for ours, theirs in T5_OUTER.items()}
    if module in outer:
        return f"{outer[module]}.{leaf}"
    block = re.fullmatch(r"encoder\.block\.(\d+)\.(.+)", module)
    inner = {theirs: ours for ours, theirs in T5_BLOCK.items()}
    return f"enc.blk.{block[1]}.{inner[block[2]]}.{leaf}" if block is not None and block[2] in inner else name
