"""Where every network of this process is: one owner, so that a model is loaded once and leaves when room is needed.

Nodes, caches and values hold recipes. The owner makes a network when it is first used, gives the same one to all who
ask, and lets the least recently used leave its device when another needs the room. States, all under one lock:
    _held        by key: networks that are there, oldest use first
    _shared      stored tensor and placement -> the parameter made of it, as long as some network has it
    _short       families whose next network is to take as little as it can, because memory ran out
    _known       by key: how many recipes there are that could ask for a network again
"""

import gc
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from sigmagraph.engine.models.arch import MMDiT
from sigmagraph.engine.models.captured import CapturedForwards
from sigmagraph.engine.models.compiled import CompiledBlocks
from sigmagraph.engine.models.files.fp8 import is_small, packed
from sigmagraph.engine.models.files.read import MappedFile, StoredTensor, files_of, is_view
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.device import Placement, available_bytes, devices, give_back
from sigmagraph.engine.models.memory.float8 import Float8Linear, with_products
from sigmagraph.engine.models.memory.modulation_tables import Tables
from sigmagraph.engine.models.memory.plan import Budget, MemoryPlan, Mode, Placed, place, plan
from sigmagraph.engine.models.memory.recipe import M, Recipe
from sigmagraph.engine.models.memory.resident import absent, filled, hollow, parameters, tensors_of
from sigmagraph.engine.models.memory.streamed import streamed
from sigmagraph.engine.units import bytes_in_words

log = logging.getLogger(__name__)
NO_CACHE = frozenset(("cpu", "meta"))
FED_BY_LAYER = frozenset(("cpu", "mps"))  # their memory is the host's: nothing is won by bringing blocks ahead
MOST_IDLE_TWINS = 2  # networks that differ in their adapters alone and wait for use


@dataclass(slots=True, eq=False)
class _Held:
    """One network that is there."""

    network: nn.Module
    mode: Mode
    placement: Placement
    family: Hashable
    files: tuple[MappedFile, ...]
    bytes_: Mapping[int, int]
    is_compiled: bool = False
    what: str = ""
    users: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def written(self) -> dict[str, Any]:
        """As JSON values; bytes of the device, without file pages. Where a file lies is nobody's business."""
        precision = str(self.placement.dtype).removeprefix("torch.")
        told = {
            "network": self.what.rpartition("/")[2],
            "mode": self.mode,
            "precision": precision,
            "device": str(self.placement.device),
        }
        return told | {"bytes": sum(self.bytes_.values()), "is_in_use": self.users > 0}


@dataclass(frozen=True, slots=True)
class Loaded:
    """One making of a network, for reports."""

    what: str
    mode: Mode
    placement: Placement
    bytes_: int
    seconds: float

    def __str__(self) -> str:
        precision = str(self.placement.dtype).removeprefix("torch.")
        size = bytes_in_words(self.bytes_)
        return f"{self.what}: {self.mode}, {precision} on {self.placement.device}, {size} in {self.seconds:.1f} s"

    def written(self) -> dict[str, Any]:
        """As JSON values; bytes of the device, without file pages."""
        precision = str(self.placement.dtype).removeprefix("torch.")
        told = {"network": self.what, "mode": self.mode, "precision": precision, "device": str(self.placement.device)}
        return told | {"bytes": self.bytes_, "seconds": self.seconds}


class Residency:
    """The owner. Safe to use from several threads; a network that is streamed serves one at a time.

    With `keeps_unknown` a network stays although no recipe is left that could ask for it: in a server, where the
    next job brings the recipe again.
    """

    def __init__(self, choices: MemoryChoices | None = None) -> None:
        self.choices = choices if choices is not None else MemoryChoices()
        self.keeps_unknown = False
        self.precisions: dict[str, str] = {}  # what the diffusion models of files compute in, by the file's name
        self.compiled = CompiledBlocks()
        self.loads: list[Loaded] = []
        self.load_count = self.eviction_count = 0
        self._planned: list[Recipe[Any]] | None = None
        self._lock = threading.RLock()
        self._held: dict[Hashable, _Held] = {}
        self._short: set[Hashable] = set()
        self._shared: weakref.WeakValueDictionary[tuple[StoredTensor, Placement], nn.Parameter] = (
            weakref.WeakValueDictionary()
        )
        self._known: Counter[Hashable] = Counter()

    def know(self, recipe: Recipe[Any]) -> None:
        """A recipe exists; its network may go when the last such recipe does."""
        key = recipe.key
        with self._lock:
            self._known[key] += 1
            if recipe.kind == "model":
                used = str(recipe.placement.dtype).removeprefix("torch.")
                self.precisions |= {file.state.path.name: used for file in files_of(recipe.base)}
        weakref.finalize(recipe, self._forgotten, key).atexit = False

    @contextmanager
    def use(self, recipe: Recipe[M]) -> Iterator[M]:
        """The recipe's network, which stays at least until the block ends. Raises `OutOfMemory`, `CorruptFile`."""
        key = recipe.key
        with self._lock:
            held = self._held.pop(key, None)
            if held is not None and not held.users and held.is_compiled != self._is_to_compile(held, recipe):
                held = None  # the choice changed since; one that computes goes on as it is
            if held is None:
                held = self._made(recipe)
            self._held[key] = held  # the youngest
            held.users += 1
        try:
            for file in held.files:
                file.require_unchanged()
            if held.mode in ("streamed", "packed"):
                with held.lock:
                    yield held.network  # type: ignore[misc]  # what the recipe builds
            else:
                yield held.network  # type: ignore[misc]
        finally:
            with self._lock:
                held.users -= 1
                if not held.users and not self._known[key] and not self.keeps_unknown:
                    self._held.pop(key, None)

    def compiles(self, device: torch.device, mode: Mode = "resident") -> bool:
        """Whether blocks run through torch.compile: on CUDA in a process that stays, or where it was chosen.

        Never while they are streamed. The first step takes some ten seconds more, so one picture alone is not worth it.
        """
        chosen = self.choices.compile
        is_on = chosen == "on" or (chosen == "auto" and device.type == "cuda" and self.keeps_unknown)
        return is_on and mode != "streamed"

    def _is_to_compile(self, held: _Held, recipe: Recipe[Any]) -> bool:
        return isinstance(held.network, MMDiT) and self._compiles(recipe, held.mode)

    def _compiles(self, recipe: Recipe[Any], mode: Mode) -> bool:
        """As `compiles`, or as the recipe itself asks."""
        return (recipe.compiles and mode != "streamed") or self.compiles(recipe.placement.device, mode)

    def counts(self) -> dict[str, Any]:
        """What happened in this process so far, and what is there now, the latest used first, for reports."""
        with self._lock:
            there = [held.written() for held in reversed(self._held.values())]
        return {
            "resident": there,
            "memory_limit_bytes": self.choices.limit_bytes,
            "loads": self.load_count,
            "evictions": self.eviction_count,
            "compiled": self.compiled.stats(),
            "precisions": dict(self.precisions),
        }

    @property
    def numbers(self) -> str:
        """All that changes what networks compute here, for the keys of results. Raises `BadValue` as choices do."""
        return self.choices.numbers + ("; compiled" if self.compiles(self.choices.on) else "")

    def plan(self, recipes: Sequence[Recipe[Any]]) -> MemoryPlan:
        """What becomes of these networks, all of one device, once all idle ones are out of the way."""
        device = recipes[0].placement.device if recipes else self.choices.on
        return plan([recipe.part() for recipe in recipes], self.budget(device))

    def admit(self, recipes: Sequence[Recipe[Any]]) -> None:
        """Raise `OutOfMemory`, with the plan, if one of these could never compute; nothing has been read then."""
        if self._planned is not None:
            self._planned += recipes
        elif recipes:
            self.plan(recipes).require()

    @contextmanager
    def planning(self) -> Iterator[list[Recipe[Any]]]:
        """Collect what is to be admitted, and refuse nothing, for as long as the block lasts."""
        self._planned = []
        try:
            yield self._planned
        finally:
            self._planned = None

    def budget(self, device: torch.device) -> Budget:
        """What may be taken of a device: what is free, and what idle networks would give back."""
        with self._lock:
            mine = {id_: size for held in self._on(device) for id_, size in held.bytes_.items()}
            busy = {id_: size for held in self._on(device) if held.users for id_, size in held.bytes_.items()}
        free = available_bytes(device) + sum(mine.values())
        limit = min(free, self.choices.limit_bytes) if self.choices.limit_bytes is not None else free
        return Budget(str(device), limit - sum(busy.values()), device.type == "cpu", self.choices.memory)

    def bytes_on(self, device: torch.device) -> int:
        """What networks take of a device, shared tensors once; file pages do not count."""
        with self._lock:
            return sum({id_: size for held in self._on(device) for id_, size in held.bytes_.items()}.values())

    def free(self) -> int:
        """Let every idle network go; how many did."""
        with self._lock:
            idle = [key for key, held in list(self._held.items()) if not held.users]
            for key in idle:
                self._evict(key)
            return len(idle)

    def relieve(self) -> None:
        """Memory ran out: every idle network goes, and the next one made for each takes as little as it can."""
        with self._lock:
            self._short |= {held.family for held in self._held.values() if not held.users}
            self.free()
        gc.collect()
        for kind in {device.type for device in devices()}:
            give_back(kind)

    def held(self) -> list[tuple[Hashable, Mode]]:
        """The networks that are there, the least recently used first."""
        with self._lock:
            return [(key, held.mode) for key, held in list(self._held.items())]

    # -- making and leaving --------------------------------------------------------------------------------------

    def _made(self, recipe: Recipe[Any]) -> _Held:
        began = time.perf_counter()
        where, weights = recipe.placement, recipe.weights
        for file in (files := files_of(weights)):  # a patch may bring further ones
            file.require_unchanged()
        shared = {
            stored: kept for stored in weights.values() if (kept := self._shared.get((stored, where))) is not None
        }
        budget = self.budget(where.device)
        if recipe.family in self._short:  # for once: what is made after that is made as ever
            self._short.discard(recipe.family)
            budget = replace(budget, memory="stream")
        part = recipe.part()
        placed = place(part, budget)
        MemoryPlan(budget, (placed,)).require()
        if self.compiles(where.device, placed.mode):  # tensors of inference mode are guarded apart: graphs of their own
            with torch.inference_mode(False), torch.no_grad():
                return self._made_as(recipe, placed, weights, shared, files, began)
        return self._made_as(recipe, placed, weights, shared, files, began)

    def _made_as(
        self,
        recipe: Recipe[Any],
        placed: Placed,
        weights: Mapping[str, StoredTensor],
        shared: Mapping[StoredTensor, nn.Parameter],
        files: tuple[MappedFile, ...],
        began: float,
    ) -> _Held:
        where, part = recipe.placement, placed.part
        booked = {id_ for held in self._on(where.device) for id_ in held.bytes_}
        reused = sum(kept.nbytes for kept in shared.values() if id(kept) in booked)
        self._make_room(placed.bytes_ + part.working_bytes - min(reused, placed.bytes_), where.device)
        self._leave_twins(recipe.family)
        left = recipe.computed_ahead if placed.leaves else frozenset[str]()
        module = hollow(recipe.build)
        if placed.mode == "streamed":
            blocks = "" if where.device.type in FED_BY_LAYER else recipe.blocks
            network = streamed(module, weights, where, blocks=blocks, left=left)
        elif placed.mode == "packed":
            staying = {name: weight for name, weight in weights.items() if name not in left}
            if recipe.has_products:
                with_products(
                    module, {name: staying[name] for name in staying.keys() - recipe.computed_ahead}, where.device
                )
            small = {
                name: packed(weight, where.device) if _waits(module, name, weight) else weight
                for name, weight in staying.items()
            }
            network = streamed(module, {**weights, **small}, where, stays=True, left=left)
        else:
            staying = {name: weight for name, weight in weights.items() if name not in left}
            made = parameters(staying, where, maps=placed.mode == "mapped", shared=shared.get)
            network = filled(module, made | {name: absent(weights[name], where) for name in left})
            self._shared.update({(weights[name], where): tensor for name, tensor in made.items()})
        self._equip(recipe, network, placed.mode, {name: weights[name] for name in left})
        if placed.mode == "packed":
            return self._noted(recipe, network, placed.mode, files, {id(network): placed.bytes_}, began)
        if placed.mode == "streamed" and where.device.type != "cpu":
            return self._noted(recipe, network, placed.mode, files, {id(network): placed.bytes_}, began)
        in_files = {view.data_ptr() for view in _views(weights)} if placed.mode != "resident" else set()
        there = [tensor for tensor in tensors_of(network) if not tensor.is_meta or where.device.type == "meta"]
        took = {id(tensor): tensor.nbytes for tensor in there if tensor.data_ptr() not in in_files}
        return self._noted(recipe, network, placed.mode, files, took, began)

    def _equip(self, recipe: Recipe[Any], network: nn.Module, mode: Mode, left: Mapping[str, StoredTensor]) -> None:
        """What makes a diffusion model faster: tables for a run, and blocks compiled where they stay."""
        if not isinstance(network, MMDiT):
            return
        if recipe.computed_ahead:
            network.tables = Tables(left)
        if mode == "streamed" or _is_fed(network):
            return
        if self._compiles(recipe, mode):
            network.call_block = self.compiled
        if recipe.placement.device.type == "cuda":
            network.captured = CapturedForwards()

    def _noted(
        self,
        recipe: Recipe[Any],
        network: nn.Module,
        mode: Mode,
        files: tuple[MappedFile, ...],
        took: Mapping[int, int],
        began: float,
    ) -> _Held:
        where, from_files = recipe.placement, files if mode in ("mapped", "streamed") else ()
        self._note(Loaded(recipe.what, mode, where, sum(took.values()), time.perf_counter() - began))
        made = _Held(network, mode, where, recipe.family, from_files, took, what=recipe.what)
        made.is_compiled = self._is_to_compile(made, recipe)
        return made

    def _note(self, loaded: Loaded) -> None:
        self.load_count += 1
        self.loads = [*self.loads[-99:], loaded]
        log.info("loaded %s", loaded)

    def _make_room(self, needed: int, device: torch.device) -> None:
        """The least recently used leave, until `needed` bytes are free or nobody idle is left."""
        if device.type == "cuda" and needed > self._room(device):
            gc.collect()  # hooks and what they feed hold each other: a network that went may be there still
        for key in [
            key for key, held in list(self._held.items()) if held.placement.device == device and not held.users
        ]:
            if needed <= self._room(device):
                return
            self._evict(key)

    def _room(self, device: torch.device) -> int:
        free = available_bytes(device)
        limit = self.choices.limit_bytes
        return free if limit is None else min(free, limit - self.bytes_on(device))

    def _leave_twins(self, family: Hashable) -> None:
        idle = [key for key, held in list(self._held.items()) if held.family == family and not held.users]
        for key in idle[: max(0, len(idle) - MOST_IDLE_TWINS + 1)]:
            self._evict(key)

    def _evict(self, key: Hashable) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        self.eviction_count += 1
        kind, held = held.placement.device.type, None
        if kind not in NO_CACHE:
            gc.collect()
            give_back(kind)

    def _on(self, device: torch.device) -> list[_Held]:
        return [held for held in list(self._held.values()) if held.placement.device == device]

    def _forgotten(self, key: Hashable) -> None:
        with self._lock:
            self._known[key] -= 1
            if self._known[key] > 0:
                return
            del self._known[key]
            held = self._held.get(key)
            if held is not None and not held.users and not self.keeps_unknown:
                self._held.pop(key, None)


def _waits(module: nn.Module, name: str, stored: StoredTensor) -> bool:
    """Whether a tensor is kept small and grows when its layer computes."""
    return is_small(stored) and not isinstance(module.get_submodule(name.rpartition(".")[0]), Float8Linear)


def _is_fed(network: MMDiT) -> bool:
    """Whether hooks bring weights to the blocks while they compute; to what computes before a run they may."""
    ahead = (
        {id(layer) for _, module, _ in network.modulations for layer in module.modules()} if network.tables else set()
    )
    return any(layer._forward_pre_hooks for layer in network.joint_blocks.modules() if id(layer) not in ahead)


def _views(weights: Mapping[str, StoredTensor]) -> Iterator[torch.Tensor]:
    return (stored.read() for stored in weights.values() if is_view(stored))


RESIDENCY = Residency()
"""The owner of this process."""


def ready(network: M, placement: Placement) -> Recipe[M]:
    """A recipe for a network that is there already."""
    return Recipe.of(network, placement, RESIDENCY)
