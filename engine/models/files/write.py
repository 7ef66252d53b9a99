"""Weight files piece by piece: a header of what will come, then the tensors, one in memory at a time.

Safetensors and GGUF. What a tensor becomes is decided by who makes the `Outgoing`; here are the containers alone.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.ggml import DENSE, FORMATS, Format
from sigmagraph.engine.models.files.header import DTYPES
from sigmagraph.engine.writing import WriteBehind, drafted, make_folder

Tell = Callable[[int], None]
"""Bytes made since it was called last; they are written a little later."""
Room = Callable[[int, torch.dtype], Tensor]
"""So many elements of a precision to make the next piece in: [elements], filled with anything."""
ALIGNMENT = 32  # of GGUF's tensors, the format's default
SAFETENSORS_ALIGNMENT = 8
NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
NUMBERS: Mapping[torch.dtype, int] = {dtype: number for number, dtype in DENSE.items()}
FORMAT_NUMBERS: Mapping[str, int] = {form.name: number for number, form in FORMATS.items()}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A tensor that will be written: `pieces` gives its values in order, in `dtype`; or blocks of `form`, as bytes.

    A piece may be made in what `Room` lends, which is used again once the next one is asked for. `ahead` brings what it
    is made from; another thread calls it while the tensor before is in work.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: Callable[[Room], Iterable[Tensor]]
    form: Format | None = None
    ahead: Callable[[], None] | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        if self.form is None:
            return prod(self.shape) * self.dtype.itemsize
        return prod(self.shape) // self.form.size * self.form.bytes_


def write_safetensors(
    folder: Path,
    names: Iterable[str],
    tensors: Sequence[Outgoing],
    metadata: Mapping[str, str],
    tell: Tell = lambda _: None,
    *,
    replaces: bool = False,
) -> Path:
    """Write the tensors under the first free name; large items first, so that each begins on a multiple of its size."""
    ordered = sorted(tensors, key=lambda tensor: (tensor.shape == (), -tensor.dtype.itemsize))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at := at + tensor.size_bytes],
        }
    text = _json(header)
    text += b" " * (-len(text) % SAFETENSORS_ALIGNMENT)
    with drafted(make_folder(folder), names, replaces=replaces) as (file, where):
        file.write(len(text).to_bytes(8, "little") + text)
        with WriteBehind(file) as write:
            for tensor in _read_ahead(ordered):
                _pour(write, tensor, tell)
    return where[0]


def write_gguf(
    folder: Path,
    names: Iterable[str],
    tensors: Sequence[Outgoing],
    metadata: Mapping[str, str | int | float],
    tell: Tell = lambda _: None,
    *,
    replaces: bool = False,
) -> Path:
    """Write the tensors as a GGUF file of version 3 under the first free name."""
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    header += b"".join(_string(name) + _value(value) for name, value in metadata.items())
    at = 0
    for tensor in tensors:
        if tensor.form is None and tensor.dtype not in NUMBERS:
            raise TensorMismatch(f"{tensor.name}: {tensor.dtype} is nothing that a GGUF file holds")
        kind = NUMBERS[tensor.dtype] if tensor.form is None else FORMAT_NUMBERS[tensor.form.name]
        sides = tensor.shape[::-1]
        header += _string(tensor.name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, at)
        at += _padded(tensor.size_bytes)
    with drafted(make_folder(folder), names, replaces=replaces) as (file, where):
        file.write(header.ljust(_padded(len(header)), b"\0"))
        with WriteBehind(file) as write:
            for tensor in _read_ahead(tensors):
                _pour(write, tensor, tell)
                write(memoryview(bytes(_padded(tensor.size_bytes) - tensor.size_bytes)))
    return where[0]


def _read_ahead(tensors: Sequence[Outgoing]) -> Iterator[Outgoing]:
    """The tensors in order. While one is in work, what the next is made from is brought."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        for tensor, following in zip_longest(tensors, tensors[1:]):
            if following is not None and following.ahead is not None:
                reader.submit(following.ahead)
            yield tensor


def _pour(write: WriteBehind, tensor: Outgoing, tell: Tell) -> None:
    def room(elements: int, dtype: torch.dtype) -> Tensor:
        if not elements:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(write.place(elements * dtype.itemsize), dtype=dtype)

    written = 0
    for piece in tensor.pieces(room):
        raw = piece.contiguous().reshape(-1).view(torch.uint8).numpy()
        write(raw.data)
        written += raw.nbytes
        tell(raw.nbytes)
    assert written == tensor.size_bytes, f"{tensor.name}: {written} bytes of {tensor.size_bytes}"


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _json(header: Mapping[str, object]) -> bytes:
    """In UTF-8; half a character, which JSON alone can hold, leaves everything beyond ASCII escaped."""
    try:
        return json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(header, separators=(",", ":")).encode()


def _string(text: str) -> bytes:
    raw = text.encode(errors="replace")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: str | int | float) -> bytes:
    """A metadata value: its kind (string, uint32, float32), then itself."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)


def in_pieces(values: Tensor, elements: int) -> Iterator[Tensor]:
    """The tensor's elements in order, so many at a time."""
    flat = values.reshape(-1)
    for start in range(0, max(flat.numel(), 1), elements):
        yield flat[start : start + elements]
