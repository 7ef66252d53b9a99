"""Weights that stay in their files and visit memory one layer at a time: bit for bit the numbers of a resident network.

A layer's large tensors are brought into one shared buffer right before it computes and are gone right after; what is
small stays. Tables of embeddings are looked up where they lie, a row at a time. The network itself knows nothing of it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from math import prod
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigmagraph.engine.models.files.fp8 import is_small
from sigmagraph.engine.models.files.ggml import Dequantise
from sigmagraph.engine.models.files.read import StoredTensor, Weights, is_view
from sigmagraph.engine.models.memory.belt import Belt
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.float8 import Float8Linear
from sigmagraph.engine.models.memory.resident import absent, filled, lies, parameter

M = TypeVar("M", bound=nn.Module)
STREAMED_FROM_BYTES = 1024 * 1024  # smaller tensors (norms, biases) stay: fetching them costs more than it saves


class StoredEmbedding(nn.Module):
    """A table of embeddings in the precision it is stored in; rows are converted when they are looked up.

    `grow` makes the rows of a quantised table of their bytes.
    """

    def __init__(self, table: Tensor, placement: Placement, grow: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(table, requires_grad=False)
        self._placement, self._grow = placement, grow

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] -> rows [..., D]."""
        table = self.weight.data
        if table.dtype.itemsize == 1:  # no look-up for 8-bit floats: look up their bytes
            rows = F.embedding(ids.to(table.device), table.view(torch.uint8)).view(table.dtype)
        else:
            rows = F.embedding(ids.to(table.device), table)
        rows = rows if self._grow is None else self._grow(rows)
        return rows.to(self._placement.device, self._placement.dtype)


def streamed(
    module: M,
    weights: Weights,
    placement: Placement,
    *,
    stays: bool = False,
    blocks: str = "",
    left: Collection[str] = (),
) -> M:
    """The hollow `module`, fed from `weights` while it computes. Not for two threads at once.

    `blocks` names its list of blocks, where whole blocks are to come, each while the one before computes; what is
    outside of them stays. With `stays` only what is kept small (float8, quantised) is fed, from where it is kept; the
    rest is copied. What is `left` out never comes: whoever computes does without.
    """
    feeder = _Feeder(placement)
    kept: dict[str, nn.Parameter] = {}
    carried: dict[str, dict[tuple[nn.Module, str], StoredTensor]] = {}
    shared: dict[StoredTensor, nn.Parameter] = {}
    for name, stored in weights.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        if name in left:
            kept[name] = feeder.absent(stored)
        elif isinstance(owner, Float8Linear) and leaf == "weight":
            kept[name] = owner.weight
        elif _is_small(stored, placement) or (stays and not is_small(stored)):
            kept[name] = shared.setdefault(stored, parameter(stored, placement, maps=False))
        elif isinstance(owner, nn.Embedding) and _is_table(stored):
            continue  # replaced below: a table may have two names and one module
        elif blocks and name.startswith(blocks):
            carried.setdefault(name.removeprefix(blocks).split(".")[0], {})[owner, leaf] = stored
            kept[name] = feeder.absent(stored)
        elif blocks and not any(owner.children()):
            kept[name] = shared.setdefault(stored, parameter(stored, placement, maps=False))
        elif is_view(stored) and (stored.dtype == placement.dtype or any(owner.children())):
            at = Placement(placement.device, stored.dtype)  # the network itself reads it, and converts what it reads
            kept[name] = shared.setdefault(stored, parameter(stored, at, maps=True))
        else:
            feeder.feed(owner, leaf, stored)
            kept[name] = feeder.absent(stored)
    tables = {} if stays else _embeddings(module, weights, placement)
    for name in (name for name in weights if name not in kept):
        kept[name] = feeder.absent(weights[name])
    filled(module, kept)
    for place, table in tables.items():
        module.set_submodule(place, table)
    feeder.watch(module)
    if carried:
        listed = [(module.get_submodule(blocks + at), places) for at, places in carried.items()]
        Belt(sorted(listed, key=lambda block: _place_of(module, block[0])), placement)
    return module


def _place_of(module: nn.Module, block: nn.Module) -> int:
    return next(at for at, candidate in enumerate(module.modules()) if candidate is block)


def _is_small(stored: StoredTensor, placement: Placement) -> bool:
    return prod(stored.shape) * placement.dtype.itemsize < STREAMED_FROM_BYTES


def _embeddings(module: nn.Module, weights: Weights, placement: Placement) -> dict[str, StoredEmbedding]:
    """Every large table that is a view into its file, by the place of its module."""
    found: dict[str, StoredEmbedding] = {}
    known: dict[StoredTensor, StoredEmbedding] = {}
    for name, stored in weights.items():
        place = name.rpartition(".")[0]
        is_table = isinstance(module.get_submodule(place), nn.Embedding)
        if is_table and _is_table(stored) and not _is_small(stored, placement):
            if stored not in known:
                grow = stored.combine.rows if isinstance(stored.combine, Dequantise) else None
                known[stored] = StoredEmbedding(next(stored.pieces()).read(), placement, grow)
            found[place] = known[stored]
    return found


def _is_table(stored: StoredTensor) -> bool:
    """Whether its rows can be looked up where they lie: as they are, or in blocks."""
    is_blocks = isinstance(stored.combine, Dequantise) and len(stored.shape) == 2
    return is_view(stored.sources[0] if is_blocks else stored)


class _Feeder:
    """Brings tensors in and out of modules by hooks; one buffer serves every layer in turn."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._sources: dict[nn.Module, dict[str, StoredTensor]] = {}
        self._buffer: Tensor | None = None
        self._largest = 0

    def absent(self, stored: StoredTensor) -> nn.Parameter:
        """What stands where a tensor will be: its shape and dtype, no memory."""
        return absent(stored, self._placement)

    def feed(self, owner: nn.Module, leaf: str, stored: StoredTensor) -> None:
        """From now on `owner` gets its tensor `leaf` when it computes."""
        sources = self._sources.setdefault(owner, {})
        sources[leaf] = stored
        self._largest = max(self._largest, sum(_room(source) for source in sources.values()))

    def watch(self, root: nn.Module) -> None:
        """Hang the hooks in; the buffer lives while the network computes."""
        for owner, sources in self._sources.items():
            gone = {leaf: self.absent(stored) for leaf, stored in sources.items()}
            owner.register_forward_pre_hook(lambda module, _, given=sources: self._bring(module, given))
            owner.register_forward_hook(lambda module, *_, left=gone: _assign(module, left), always_call=True)
        root.register_forward_hook(lambda *_: self._forget(), always_call=True)

    def _bring(self, module: nn.Module, sources: Mapping[str, StoredTensor]) -> None:
        if self._buffer is None:
            self._buffer = torch.empty(self._largest, dtype=self._placement.dtype, device=self._placement.device)
        places = _cut(self._buffer, sources)
        for leaf, stored in sources.items():
            target = next(places)
            target.copy_(_values(stored, self._placement))
            module._parameters[leaf] = nn.Parameter(target, requires_grad=False)

    def _forget(self) -> None:
        self._buffer = None


def _values(stored: StoredTensor, placement: Placement) -> Tensor:
    """What goes into a buffer: grown on the device, or before it goes there where the device cannot hold it."""
    if not lies(stored, placement.device):
        return stored.read().to(placement.dtype)
    return stored.on(placement.device) if stored.combine is not None else stored.read()


def _room(stored: StoredTensor) -> int:
    return -(-prod(stored.shape) // 64) * 64  # elements, so that each tensor begins on a boundary of 128 bytes or more


def _cut(buffer: Tensor, sources: Mapping[str, StoredTensor]) -> Iterator[Tensor]:
    at = 0
    for stored in sources.values():
        yield buffer[at : at + prod(stored.shape)].view(stored.shape)
        at += _room(stored)


def _assign(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Any:
    module._parameters.update(parameters)
