"""The header of a safetensors file, checked against the file's size before anything is allocated.

Knows the container format only (8 bytes of length, JSON, data): not tensors' meaning, not torch modules. Files of other
kinds are recognised by their first bytes and refused; nothing here ever unpickles.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sigmagraph.engine.errors import CorruptFile, MissingFile, RefusedFile

LENGTH_BYTES = 8
# Real headers are below 1 MB; tokenizers in the metadata add a few. This bounds what a lying file can make us read.
LARGEST_HEADER_BYTES = 32 * 1024 * 1024
LARGEST_SIDE = 2**48
MOST_TENSORS = 100_000  # of a file: fifty times what any has; each takes time

E8M0: torch.dtype = getattr(torch, "float8_e8m0fnu", torch.uint8)
"""Scales that are powers of two; torch 2.6 knows no such type, and their bytes are what is read."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": E8M0,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

FOREIGN_CONTENT: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"PK\x03\x04"), "a zip archive (a PyTorch pickle, most likely)"),
    (re.compile(rb"\x80[\x01-\x05]|c[a-zA-Z_]+\n|\(d[p0q.]|\(l[p0q.]|[}\]]q\x00"), "a Python pickle"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer: the weights themselves were not downloaded"),
    (re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE), "a web page: the download failed, most likely"),
    (re.compile(rb"\s*\{"), "JSON text"),
)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: byte positions count from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of one file by name, and its free-form metadata."""

    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Parse and check the header of `path`.

    Raises `MissingFile`, `RefusedFile` (another kind of file) or `CorruptFile` (the header contradicts the file).
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            return _checked(path, _header_json(path, file, size), size)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise MissingFile(path, "there is no such file") from None
    except OSError as error:
        raise CorruptFile(path, f"cannot be read ({error.strerror})") from error


def _header_json(path: Path, file: BinaryIO, size: int) -> bytes:
    first = file.read(512)
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    is_safetensors = first[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and 2 <= length <= LARGEST_HEADER_BYTES
    if not is_safetensors:
        _refuse(path, first)
        raise CorruptFile(
            path, f"not a safetensors file: its first bytes are {first[:LENGTH_BYTES].hex(' ') or 'none'}"
        )
    if LENGTH_BYTES + length > size:
        raise CorruptFile(path, f"truncated: the header says {length} bytes, the file has {size} in all")
    file.seek(LENGTH_BYTES)
    return file.read(length)


def _refuse(path: Path, first: bytes) -> None:
    for pattern, kind in FOREIGN_CONTENT:
        if pattern.match(first):
            raise RefusedFile(path, f"this is {kind}; only safetensors and GGUF files are opened")
    if first[257:262] == b"ustar":
        raise RefusedFile(path, "this is a tar archive; only safetensors and GGUF files are opened")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _checked(path: Path, text: bytes, size: int) -> Header:
    try:
        parsed = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(path, f"the header is not valid JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise CorruptFile(path, "the header is not a JSON object")
    if len(parsed) > MOST_TENSORS:
        raise CorruptFile(path, f"the header names {len(parsed)} tensors; at most {MOST_TENSORS} are read")
    metadata = parsed.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptFile(path, "the header's __metadata__ is not a table of strings")
    data_start = LENGTH_BYTES + len(text)
    entries = {name: _entry(path, name, entry, data_start, size) for name, entry in parsed.items()}
    _check_coverage(path, entries, data_start, size)
    return Header(entries, metadata)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= LARGEST_SIDE for value in values)


def _entry(path: Path, name: str, entry: object, data_start: int, size: int) -> TensorEntry:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CorruptFile(path, f"tensor {name!r}: its header entry is not (dtype, shape, data_offsets)")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CorruptFile(path, f"tensor {name!r}: dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise CorruptFile(path, f"tensor {name!r}: shape {shape!r} or offsets {offsets!r} are not sizes")
    start, stop = (data_start + offset for offset in offsets)
    if not start <= stop <= size:
        raise CorruptFile(
            path, f"tensor {name!r}: bytes {start} to {stop} lie outside the file of {size} bytes (truncated?)"
        )
    expected = prod(shape) * DTYPES[dtype].itemsize
    if not expected and prod(side or 1 for side in shape) > LARGEST_SIDE:
        raise CorruptFile(path, f"tensor {name!r}: shape {shape!r} is nothing that can be addressed")
    if stop - start != expected:
        raise CorruptFile(path, f"tensor {name!r}: {stop - start} bytes for {dtype} {shape}, which takes {expected}")
    return TensorEntry(DTYPES[dtype], tuple(shape), start, stop)


def _check_coverage(path: Path, entries: Mapping[str, TensorEntry], data_start: int, size: int) -> None:
    """The tensors fill the data section without overlap, gap or rest, as the format demands."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            problem = "overlaps the one before it" if entry.start < position else "leaves a gap before it"
            raise CorruptFile(path, f"tensor {name!r} {problem} (byte {entry.start}, expected {position})")
        position = entry.stop
    if position != size:
        raise CorruptFile(path, f"{size - position} bytes after the last tensor belong to nothing")
