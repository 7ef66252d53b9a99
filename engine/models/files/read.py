"""Weight files as tables of tensors that are read when asked for: one safetensors file, or several behind an index.

A stored tensor is a view into the memory-mapped file until somebody copies it, so opening a checkpoint of any size is
cheap. Knows nothing of models; renaming and detection work on the same tables.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import CorruptFile, MissingFile
from sigmagraph.engine.models.files.header import Entry, read_header

LARGEST_INDEX_BYTES = 32 * 1024 * 1024
INDEX_SUFFIX = ".safetensors.index.json"
SHARD_NAME = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that has not been read yet: its shape and stored dtype are known, `read` gives the values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


Weights = Mapping[str, StoredTensor]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """The tensors of one file (or of all shards of one index) and their metadata. `path` is what was asked for."""

    path: Path
    weights: Weights
    metadata: Mapping[str, str] = field(default_factory=dict)


def open_weights(path: Path) -> WeightFile:
    """Open a safetensors file, an index of shards, one shard of several, or a folder that holds one of these.

    Raises `MissingFile`, `RefusedFile`, `CorruptFile`.
    """
    path = Path(path)
    if path.is_dir():
        return open_weights(_single_model(path))
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path, path)
    shard = SHARD_NAME.fullmatch(path.name)
    index = path.with_name(f"{shard[1]}{INDEX_SUFFIX}") if shard else None
    return _open_index(path, index) if index is not None and index.is_file() else _open_file(path)


def under(weights: Weights, prefix: str) -> dict[str, StoredTensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _single_model(folder: Path) -> Path:
    for pattern in (f"*{INDEX_SUFFIX}", "*.safetensors"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:6])
            raise MissingFile(folder, f"holds several models ({names}); name one of them")
    raise MissingFile(folder, "is a folder without a safetensors file")


def _open_file(path: Path) -> WeightFile:
    header = read_header(path)
    mapped = _map(path)
    weights = {name: _stored(mapped, entry) for name, entry in header.entries.items()}
    return WeightFile(path, weights, header.metadata)


def _map(path: Path) -> Tensor:
    """The whole file as bytes, private and lazily paged in."""
    try:
        return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    except (OSError, RuntimeError) as error:
        raise CorruptFile(path, f"cannot be mapped into memory ({error})") from error


def _stored(mapped: Tensor, entry: Entry) -> StoredTensor:
    def read() -> Tensor:
        raw = mapped[entry.start : entry.stop]
        if entry.start % entry.dtype.itemsize:
            raw = raw.clone()  # a view must start on a multiple of the item size
        return raw.view(entry.dtype).reshape(entry.shape)

    return StoredTensor(entry.shape, entry.dtype, read)


def _open_index(asked: Path, index: Path) -> WeightFile:
    weights: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    places = _weight_map(index)
    for shard_name in sorted(set(places.values())):
        shard = _open_file(index.with_name(shard_name))
        metadata |= shard.metadata
        weights |= shard.weights
    missing = sorted(set(places) - set(weights))
    if missing:
        raise CorruptFile(index, f"lists {len(missing)} tensors that no shard holds, {missing[0]!r} first")
    return WeightFile(asked, weights, metadata)


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
