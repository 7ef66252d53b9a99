"""Results by content key, in memory, under a byte budget. Evicts what is cheapest to make again per byte."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from threading import RLock
from typing import Any

from sigmagraph.engine.execution.cache.footprint import Footprint, footprint


@dataclass(frozen=True, slots=True)
class Entry:
    """A node's result: one list per output slot, its user-interface record, and what it cost."""

    outputs: tuple[list[Any], ...]
    ui: Mapping[str, Any] | None = None
    milliseconds: float = 0.0
    inner_ui: Sequence["InnerUi"] = ()


@dataclass(frozen=True, slots=True)
class InnerUi:
    """What an output node inside an expansion showed; shown again when the expansion comes from the cache.

    `suffix` is the node's id without the id of the expanding node, which may be called otherwise next time.
    `display_id` is the node of the prompt that the editor shows for it; None for the expanding node.
    """

    suffix: str
    class_type: str
    ui: Mapping[str, Any]
    display_id: str | None = None


@dataclass(slots=True)
class _Held:
    entry: Entry
    footprint: Footprint
    worth: float
    rank: float = 0.0


@dataclass
class MemoryCache:
    """Greedy-dual-size: an entry's rank is clock plus cost per byte; the lowest leaves and sets the clock.

    Blocks shared by several entries (a model's weights) are counted once. `budget_bytes` None means no limit, 0 keeps
    nothing. Safe to use from several threads.
    """

    budget_bytes: int | None = None
    used_bytes: int = 0

    def __post_init__(self) -> None:
        self._lock = RLock()
        self._held: dict[str, _Held] = {}
        self._holders: Counter[int] = Counter()
        self._heap: list[tuple[float, int, str]] = []
        self._turns = count()
        self._clock = 0.0

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str) -> Entry | None:
        """The entry, which becomes younger by that."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                return None
            held.rank = self._clock + held.worth
            return held.entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry if it fits; an entry larger than the whole budget is not kept."""
        if self.budget_bytes == 0:
            return
        behind = footprint(entry.outputs)
        size = behind.total_bytes
        if self.budget_bytes is not None and size > self.budget_bytes:
            return
        with self._lock:
            self.drop(key)
            held = self._held[key] = _Held(entry, behind, entry.milliseconds / max(1, size))
            self.used_bytes += behind.own_bytes
            for block, bytes_ in behind.blocks.items():
                self._holders[block] += 1
                self.used_bytes += bytes_ if self._holders[block] == 1 else 0
            held.rank = self._clock + held.worth
            self._push(key, held)
            self._shrink()

    def drop(self, key: str) -> None:
        """Forget an entry; nothing happens if there is none."""
        with self._lock:
            held = self._held.pop(key, None)
            if held is None:
                return
            self.used_bytes -= held.footprint.own_bytes
            for block, size in held.footprint.blocks.items():
                self._holders[block] -= 1
                if not self._holders[block]:
                    del self._holders[block]
                    self.used_bytes -= size

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            for key in list(self._held):
                self.drop(key)
            self._heap.clear()

    def _push(self, key: str, held: _Held) -> None:
        heapq.heappush(self._heap, (held.rank, next(self._turns), key))
        if len(self._heap) > 4 * len(self._held) + 1024:  # mostly entries that were dropped or replaced
            self._heap = [(kept.rank, next(self._turns), name) for name, kept in self._held.items()]
            heapq.heapify(self._heap)

    def _shrink(self) -> None:
        """Drop the lowest; an entry that was of use since it was put on the heap goes back with its new rank."""
        while self.budget_bytes is not None and self.used_bytes > self.budget_bytes and self._heap:
            rank, _, key = heapq.heappop(self._heap)
            held = self._held.get(key)
            if held is None:
                continue
            if held.rank > rank:
                self._push(key, held)
                continue
            self._clock = max(self._clock, rank)
            self.drop(key)
