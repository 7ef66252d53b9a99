"""A network before it is anywhere: its class, its stored weights, its precision. Values on graph edges hold this.

A recipe takes no memory beside its adapters. Who wants the network asks `use`, which its owner answers (residency.py):
the network is built, shared, moved away and built again as memory allows, always to the same numbers.
"""

from collections.abc import Callable, Hashable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import nn

from sigmagraph.engine.errors import TensorMismatch
from sigmagraph.engine.models.files.fp8 import are_numbers, is_rounded, is_small, packed_bytes, roundings
from sigmagraph.engine.models.files.lora import WeightPatch, patched
from sigmagraph.engine.models.files.read import StoredTensor, Weights, files_of, is_quantised, is_view
from sigmagraph.engine.models.memory.device import Placement, tabulates
from sigmagraph.engine.models.memory.float8 import multiplies_float8
from sigmagraph.engine.models.memory.plan import Part
from sigmagraph.engine.models.memory.resident import check_tensors, expected, lies, listing
from sigmagraph.engine.models.memory.streamed import STREAMED_FROM_BYTES

M = TypeVar("M", bound=nn.Module)
TABLES = ("shared.weight", "embed_tokens.weight", "token_embedding.weight", "position_embedding.weight")
ENTRY_BYTES = 500
"""Of the interpreter's memory, for a name, a stored tensor and where it lies."""
Kind = Literal["text", "model", "control", "vae"]


class Owner(Protocol):
    """Who makes and keeps networks."""

    def know(self, recipe: "Recipe[Any]") -> None:
        """There is a recipe more."""

    def use(self, recipe: "Recipe[M]") -> AbstractContextManager[M]:
        """Its network, for as long as the block lasts."""


class Table(Mapping[str, StoredTensor]):
    """Stored tensors by name, as one thing: who walks through a value for its bytes need not look at a thousand."""

    def __init__(self, tensors: Weights) -> None:
        self._tensors = dict(tensors)
        self.nbytes = ENTRY_BYTES * len(tensors)

    @cached_property
    def identity(self) -> Hashable:
        """Equal for tables of the same tensors: from the same files as they are now, rounded alike."""
        first = next(iter(self._tensors.values())).pieces()
        files = frozenset(file.state for file in files_of(self._tensors))
        return next(first).read, len(self._tensors), files, roundings(self._tensors)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def keys(self) -> KeysView[str]:
        """As a dictionary's, and as fast."""
        return self._tensors.keys()

    def values(self) -> ValuesView[StoredTensor]:
        """As a dictionary's, and as fast."""
        return self._tensors.values()

    def items(self) -> ItemsView[str, StoredTensor]:
        """As a dictionary's, and as fast."""
        return self._tensors.items()


@dataclass(frozen=True, eq=False)
class Recipe(Generic[M]):
    """How to make one network. `what` names it in messages; `patches` are merged while it is made.

    `build` makes the module without weights, `blocks` is the prefix of those that run one after another, `ahead` is in
    the names of what can be computed before a run (modulation_tables.py). A `ready` network is its own recipe: it stays
    where it is and is never moved away. `multiplies`: float8 weights may be multiplied with as they are. A `second`
    device makes a part of what is asked at once (halves.py). `parents` are the keys of the recipes it was merged from,
    and how. `compiles`: its blocks are to run compiled, whatever was chosen for the process.
    """

    what: str
    kind: Kind
    build: Callable[[], M]
    base: Weights
    placement: Placement
    owner: Owner
    blocks: str = ""
    ahead: str = ""
    patches: tuple[WeightPatch, ...] = ()
    ready: M | None = None
    multiplies: bool = True
    second: torch.device | None = None
    parents: Hashable = ()
    compiles: bool = False

    def __post_init__(self) -> None:
        if self.ready is None and not isinstance(self.base, Table):
            object.__setattr__(self, "base", Table(self.base))
        self.owner.know(self)

    @classmethod
    def checked(
        cls,
        what: str,
        kind: Kind,
        build: Callable[[], M],
        weights: Weights,
        placement: Placement,
        owner: Owner,
        blocks: str = "",
        ahead: str = "",
        *,
        multiplies: bool = True,
        second: torch.device | None = None,
    ) -> "Recipe[M]":
        """The recipe, once names and shapes fit the module that `build` makes. Nothing is allocated.

        Raises `TensorMismatch`: missing and misshapen tensors are listed. Surplus ones are told in the log.
        """
        hollow = [name for name, tensor in weights.items() if 0 in tensor.shape]
        if hollow:
            raise TensorMismatch(f"{what}: {listing('without elements', hollow)}")
        try:
            shapes = expected(build)
        except (ValueError, IndexError, ArithmeticError, RuntimeError) as error:
            raise TensorMismatch(f"{what}: tensors of these sizes form no such network ({error})") from error
        check_tensors(what, shapes, weights)
        known = {name: tensor for name, tensor in weights.items() if name in shapes}
        bare = [f"{name} {tensor.dtype}" for name, tensor in known.items() if not are_numbers(tensor)]
        if bare:
            raise TensorMismatch(f"{what}: {listing('stored as integers, without a scale', bare)}")
        return cls(what, kind, build, known, placement, owner, blocks, ahead, multiplies=multiplies, second=second)

    @classmethod
    def of(cls, network: M, placement: Placement, owner: Owner, kind: Kind = "model") -> "Recipe[M]":
        """A network that is there already."""
        weights = {
            name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda kept=tensor: kept)  # type: ignore[misc]
            for name, tensor in network.state_dict().items()
        }
        return cls(type(network).__name__, kind, lambda: network, weights, placement, owner, ready=network)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recipe[M]":
        """Itself: it never changes. Node packs copy what they hold before they change it."""
        return self

    @property
    def weights(self) -> Weights:
        """The stored tensors with every patch, by name."""
        return patched(self.base, self.patches) if self.patches else self.base

    @property
    def key(self) -> Hashable:
        """Equal for recipes that make equal networks."""
        return (*self.family, tuple(patch.identity for patch in self.patches))

    @property
    def family(self) -> tuple[Hashable, ...]:
        """What recipes that differ in their patches alone have in common."""
        if self.ready is not None:
            return (id(self.ready),)
        assert isinstance(self.base, Table)
        made = self.kind, self.what, self.base.identity, self.placement, self.multiplies, self.parents
        return (*made, "compiled") if self.compiles else made

    @cached_property
    def twin(self) -> "Recipe[M] | None":
        """The same network on the second device, if there is one."""
        if self.second is None:
            return None
        return replace(self, placement=replace(self.placement, device=self.second), second=None)

    @property
    def computed_ahead(self) -> frozenset[str]:
        """Names of the tensors that are used before a run alone; on a CPU nothing is tabulated."""
        if not self.ahead or not tabulates(self.placement.device):
            return frozenset()
        return frozenset(name for name in self.base if self.ahead in name)

    def with_patches(self, patches: Sequence[WeightPatch]) -> "Recipe[M]":
        """The same network with these patches in place of those it has."""
        return replace(self, patches=tuple(patches)) if tuple(patches) != self.patches else self

    def use(self) -> AbstractContextManager[M]:
        """The network, ready to compute, for as long as the block lasts."""
        if self.ready is not None and not self.patches:
            return nullcontext(self.ready)
        return self.owner.use(self)

    @property
    def network(self) -> M:
        """The network as it is now, to look at; to compute with it, `use` it."""
        with self.use() as network:
            return network

    @property
    def has_products(self) -> bool:
        """Whether float8 weights are multiplied with as they are: of diffusion models in bfloat16, where cards can."""
        is_asked = self.multiplies and self.kind == "model" and self.placement.dtype == torch.bfloat16
        return is_asked and multiplies_float8(self.placement.device)

    def part(self) -> Part:
        """Its sizes, for planning."""
        return self._part

    @cached_property
    def _part(self) -> Part:
        dtype, named = self.placement.dtype, self.weights
        weights = tuple(dict.fromkeys(named.values()))
        dense = {weight: prod(weight.shape) * dtype.itemsize for weight in weights}
        views = [weight for weight in weights if is_view(weight)]
        stays = {weight for name, weight in named.items() if is_view(weight) and _is_looked_up(name)}
        stays_small = {weight: lies(weight, self.placement.device) for weight in weights}
        small = {  # what is not small in its file grows at once, to what is computed in
            weight: min(size, packed_bytes(weight)) if stays_small[weight] and is_small(weight) else size
            for weight, size in dense.items()
        }
        ahead, blocks = self.computed_ahead, dict[str, int]()
        for name, weight in named.items():
            if self.blocks and name.startswith(self.blocks) and name not in ahead:
                at = name.removeprefix(self.blocks).split(".")[0]
                blocks[at] = blocks.get(at, 0) + dense[weight] + 2 * weight.stored_bytes
        inside = sum(dense[weight] for name, weight in named.items() if self.blocks and name.startswith(self.blocks))
        return Part(
            name=self.what.rpartition("/")[2],
            kind=self.kind,
            precision=str(dtype).removeprefix("torch."),
            dense_bytes=sum(dense.values()),
            stored_bytes=sum(weight.stored_bytes for weight in weights),
            mapped_bytes=sum(dense[view] for view in views if view.dtype == dtype),
            largest_bytes=max((size for weight, size in dense.items() if weight not in stays), default=0),
            kept_bytes=sum(size for size in dense.values() if size < STREAMED_FROM_BYTES),
            block_bytes=max(blocks.values(), default=0),
            outside_bytes=sum(dense.values()) - inside,
            packed_bytes=sum(small.values()),
            is_rounded=any(is_rounded(weight) and stays_small[weight] for weight in weights),
            is_quantised=any(is_quantised(weight) for weight in weights),
            ahead_bytes=(sum(dense[named[name]] for name in ahead), sum(small[named[name]] for name in ahead)),
            has_products=self.has_products,
        )


def _is_looked_up(name: str) -> bool:
    """Whether rows of a tensor are read where they lie: the network's own table of positions, and embeddings."""
    return "." not in name or name.endswith(TABLES)
