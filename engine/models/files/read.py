"""Weight files as tables of tensors that are read when asked for: safetensors, several behind an index, or GGUF.

A stored tensor is a view into the memory-mapped file until somebody copies it, so opening a checkpoint of any size is
cheap. Knows nothing of models; renaming and detection work on the same tables.
"""

import ctypes
import json
import logging
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import CorruptFile, MissingFile, OutOfMemory, RefusedFile, StaleFile, is_out_of_memory
from sigmagraph.engine.models.files.ggml import Dequantise
from sigmagraph.engine.models.files.gguf import Quantised, is_gguf, read_gguf
from sigmagraph.engine.models.files.header import TensorEntry, read_header

log = logging.getLogger(__name__)
PAGE, MADV_POPULATE_READ = os.sysconf("SC_PAGE_SIZE"), 22  # of linux/mman.h, since 5.14
_ADVISE = ctypes.CDLL(None).madvise if sys.platform == "linux" else None
LARGEST_INDEX_BYTES = 32 * 1024 * 1024
INDEX_SUFFIX = ".safetensors.index.json"
PRECISION = "fp16|bf16|fp32|fp8|non_ema"  # as diffusers' file names have it before the ending, or behind it
INDEX_NAME = re.compile(
    rf"(?P<stem>.+?)(?:\.(?P<precision>{PRECISION}))?\.safetensors\.index(?:\.(?P<last>{PRECISION}))?\.json"
)
FILE_NAME = re.compile(rf"(?P<stem>.+?)(?:\.(?P<precision>{PRECISION}))?\.safetensors")
SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<at>\d{5})-of-(?P<count>\d{5})\.safetensors")


Combine = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that has not been read yet: its shape and stored dtype are known, `read` gives the values.

    One that is made from others names them in `sources`; `combine` is the arithmetic, which runs on any device. What is
    stored small (float8, quantised blocks) can so travel small and grow where it is needed.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    sources: tuple["StoredTensor", ...] = ()
    combine: Combine | None = None

    def __hash__(self) -> int:
        return hash(self.read)  # equal tensors are read from the same place: thousands are asked for at a time

    def on(self, device: torch.device) -> Tensor:
        """The values on a device, in the precision they have there; only stored bytes are moved."""
        if self.combine is None:
            return self.read().to(device)
        return self.combine([source.on(device) for source in self.sources])

    def pieces(self) -> Iterator["StoredTensor"]:
        """What lies in files: this one, or what it is made from, in the order `expanded` takes them."""
        if self.combine is None:
            yield self
        for source in self.sources:
            yield from source.pieces()

    def expanded(self, pieces: Iterator[Tensor]) -> Tensor:
        """The values, made from tensors in the order of `pieces`."""
        if self.combine is None:
            return next(pieces)
        return self.combine([source.expanded(pieces) for source in self.sources])

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file; of a quantised tensor, its blocks'."""
        return sum(prod(piece.shape) * piece.dtype.itemsize for piece in self.pieces())


Weights = Mapping[str, StoredTensor]


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was opened. Equal states stand for equal contents."""

    path: Path
    size: int
    changed_ns: int
    inode: int


class MappedFile:
    """A file's bytes in memory, private and lazily paged in, and the open file they come from.

    A file of the same name that takes its place changes nothing here; one that is written over does.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._handle = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._handle)
            facts = os.fstat(self._handle)
            self.state = FileState(path.absolute(), facts.st_size, facts.st_mtime_ns, facts.st_ino)
            self.bytes_ = torch.from_file(str(path), shared=False, size=facts.st_size, dtype=torch.uint8)
        except (OSError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(f"{path}: no address space to map the file into: {error}") from error
            raise CorruptFile(path, f"cannot be mapped into memory ({error})") from error

    def read_into(self, start: int, place: memoryview) -> None:
        """Fill `place` with the bytes from `start`. Raises `StaleFile` where the file ends; a map would crash. So it
        does where it was written to: what was read before would not belong to this.
        """
        try:
            while place and (count := os.preadv(self._handle, [place], start)):
                start, place = start + count, place[count:]
        except OSError as error:
            raise CorruptFile(self.state.path, f"cannot be read ({error.strerror})") from error
        if place:
            raise StaleFile(self.state.path, f"ends at byte {start}: it was cut short since it was opened")
        self.require_unchanged()

    def require_unchanged(self) -> None:
        """Raise `StaleFile` if the file was written to since: what is mapped would show the new bytes."""
        facts = os.fstat(self._handle)
        if (facts.st_size, facts.st_mtime_ns) != (self.state.size, self.state.changed_ns):
            raise StaleFile(self.state.path, "changed on disk since it was opened; run the graph again")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """The tensors of one file (or of all shards of one index) and their metadata. `path` is what was asked for."""

    path: Path
    weights: Weights
    metadata: Mapping[str, str] = field(default_factory=dict)
    states: tuple[FileState, ...] = ()


def open_weights(path: Path, variant: str | None = None) -> WeightFile:
    """Open a safetensors or GGUF file, an index of shards, one shard of several, or a folder that holds one of these.

    Of a folder with a model in several precisions (`model.fp16.safetensors`) `variant` names one, where it is there.
    Raises `MissingFile`, `RefusedFile`, `CorruptFile`.
    """
    path = Path(path)
    if path.is_dir():
        return open_weights(_single_model(path, variant))
    if INDEX_NAME.fullmatch(path.name):
        return _open_index(path, path)
    shard = SHARD_NAME.fullmatch(path.name)
    if shard is None:
        return _open_file(path)
    index = next((index for index in _indexes(path, shard["stem"]) if index.is_file()), None)
    return _open_index(path, index) if index is not None else _open_siblings(path, shard)


def _indexes(shard: Path, stem: str) -> Iterator[Path]:
    """What the index of a shard may be called; a precision stands behind the shard's name, and at the index's end."""
    yield shard.with_name(f"{stem}{INDEX_SUFFIX}")
    plain, _, precision = stem.rpartition(".")
    if re.fullmatch(PRECISION, precision):
        yield shard.with_name(f"{plain}.safetensors.index.{precision}.json")


def _open_siblings(shard: Path, found: re.Match[str]) -> WeightFile:
    """A shard and the others, where there is no index. Raises `MissingFile`, naming the first that is not there."""
    count = int(found["count"])
    others = [f"{found['stem']}-{at:05}-of-{found['count']}.safetensors" for at in range(1, count + 1)]
    return _together(shard, [shard.with_name(name) for name in others] if int(found["at"]) <= count else [shard])


def under(weights: Weights, prefix: str) -> dict[str, StoredTensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _single_model(folder: Path, variant: str | None = None) -> Path:
    """The model of a folder: an index before a file, and of several precisions the named one, else the plain one."""
    for pattern, form in (("*.safetensors.index*.json", INDEX_NAME), ("*.safetensors", FILE_NAME)):
        matched = [(path, form.fullmatch(path.name)) for path in sorted(folder.glob(pattern))]
        names = [(path, found) for path, found in matched if found is not None]
        if not names:
            continue
        shards = [shard for path, _ in names if (shard := SHARD_NAME.fullmatch(path.name)) is not None]
        if len(shards) == len(names) and len({shard["stem"] for shard in shards}) == 1:
            return names[0][0]  # of one model that came without its index
        if len({found["stem"] for _, found in names}) > 1:
            listed = ", ".join(path.name for path, _ in names[:6])
            raise MissingFile(folder, f"holds several models ({listed}); name one of them")
        by_precision = {found["precision"] or found.groupdict().get("last") or "": path for path, found in names}
        wanted = variant if variant in by_precision else "" if "" in by_precision else min(by_precision)
        if len(by_precision) > 1:
            others = ", ".join(path.name for precision, path in by_precision.items() if precision != wanted)
            log.info("%s: %s is read, not %s", folder, by_precision[wanted].name, others)
        return by_precision[wanted]
    raise MissingFile(folder, "is a folder without a safetensors file")


def _open_file(path: Path) -> WeightFile:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise RefusedFile(path, "is a pipe, a socket or a device; weights are read from files")
    header = read_gguf(path) if is_gguf(path) else read_header(path)
    file = MappedFile(path)
    weights = {
        name: _stored(entry, file) if isinstance(entry, TensorEntry) else _quantised(entry, file)
        for name, entry in header.entries.items()
    }
    return WeightFile(path, weights, header.metadata, (file.state,))


def _stored(entry: TensorEntry, file: MappedFile) -> StoredTensor:
    return StoredTensor(entry.shape, entry.dtype, FileSlice(file.state, entry, file))


def _quantised(entry: Quantised, file: MappedFile) -> StoredTensor:
    """Its bytes travel; the values are made of them where they are needed."""
    blocks = _stored(entry.blocks, file)
    grow = Dequantise(entry.format, entry.shape)
    return StoredTensor(entry.shape, entry.blocks.dtype, lambda: grow([blocks.read()]), (blocks,), grow)


def is_quantised(tensor: StoredTensor) -> bool:
    """Whether it, or what it is made of, is stored in blocks of small integers."""
    return isinstance(tensor.combine, Dequantise) or any(map(is_quantised, tensor.sources))


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Reads one tensor of a mapped file: a view, unless it lies askew. Equal slices of equal files are equal."""

    state: FileState
    entry: TensorEntry
    file: MappedFile = field(compare=False, repr=False)

    def __hash__(self) -> int:
        return hash((self.state.inode, self.entry.start))

    def __call__(self) -> Tensor:
        raw = self.file.bytes_[self.entry.start : self.entry.stop]
        if not self.is_aligned:
            raw = raw.clone()  # a view must start on a multiple of the item size
        return raw.view(self.entry.dtype).reshape(self.entry.shape)

    def read_into(self, at: int, place: memoryview) -> None:
        """Fill `place` with the tensor's bytes from `at` on, without mapping them."""
        self.file.read_into(self.entry.start + at, place)

    @property
    def is_aligned(self) -> bool:
        """Whether reading gives a view into the mapping."""
        return self.entry.start % self.entry.dtype.itemsize == 0


def is_view(tensor: StoredTensor) -> bool:
    """Whether reading it takes no memory: it is a view into a mapped file."""
    return tensor.combine is None and isinstance(tensor.read, FileSlice) and tensor.read.is_aligned


def bytes_of(tensor: StoredTensor) -> bytes:
    """What a small tensor holds, read alone. A touch of the map would read megabytes round it from the disk."""
    if not isinstance(tensor.read, FileSlice):
        return bytes(tensor.read().flatten().tolist())
    held = bytearray(tensor.stored_bytes)
    tensor.read.read_into(0, memoryview(held))
    return bytes(held)


def bring(tensor: StoredTensor) -> None:
    """Read and map the pages that a tensor lies in, so that using it does not wait for each. On Linux only."""
    for piece in tensor.pieces():
        if is_view(piece) and _ADVISE is not None:
            view = piece.read()
            start = view.data_ptr() // PAGE * PAGE
            _ADVISE(ctypes.c_void_p(start), ctypes.c_size_t(view.data_ptr() + view.nbytes - start), MADV_POPULATE_READ)


def files_of(weights: Weights) -> tuple[MappedFile, ...]:
    """The files that a table's tensors lie in."""
    pieces = (piece.read for tensor in weights.values() for piece in tensor.pieces())
    return tuple({piece.state: piece.file for piece in pieces if isinstance(piece, FileSlice)}.values())


def _open_index(asked: Path, index: Path) -> WeightFile:
    places = _weight_map(index)
    whole = _together(asked, [index.with_name(shard) for shard in sorted(set(places.values()))])
    missing = sorted(set(places) - set(whole.weights))
    if missing:
        raise CorruptFile(index, f"lists {len(missing)} tensors that no shard holds, {missing[0]!r} first")
    return whole


def _together(asked: Path, shards: Sequence[Path]) -> WeightFile:
    weights: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    states: list[FileState] = []
    for path in shards:
        shard = _open_file(path)
        metadata |= shard.metadata
        weights |= shard.weights
        states += shard.states
    return WeightFile(asked, weights, metadata, tuple(states))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        if index.stat().st_size > LARGEST_INDEX_BYTES:
            raise CorruptFile(index, f"is larger than {LARGEST_INDEX_BYTES} bytes: no index")
        parsed: Any = json.loads(index.read_text("utf-8"))
        places = parsed["weight_map"]
    except FileNotFoundError:
        raise MissingFile(index, "there is no such file") from None
    except (ValueError, RecursionError, KeyError, TypeError, OSError) as error:
        raise CorruptFile(index, f"is not an index of shards ({error})") from None
    if not isinstance(places, dict) or not places:
        raise CorruptFile(index, "its weight_map is not a table of file names")
    for shard_name in places.values():
        is_plain = isinstance(shard_name, str) and re.fullmatch(r"[^/\\\0]+\.safetensors", shard_name)
        if not is_plain:
            raise CorruptFile(index, f"shard {shard_name!r} is not the name of a file beside it")
    return places
