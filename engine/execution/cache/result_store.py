"""Where results are kept: memory, then disk; and who is computing what right now, so that equal work is done once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from sigmagraph.engine.execution.cache.disk import DiskTier
from sigmagraph.engine.execution.cache.memory import Entry, MemoryCache
from sigmagraph.engine.execution.cache.output_files import OutputFiles
from sigmagraph.engine.execution.events import Source, Tier
from sigmagraph.engine.graph.comfy.defensive_copy import has_nan

Wake = Callable[[], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A kept result, and the tier it was found in."""

    entry: Entry
    source: Source


class ResultStore:
    """Two tiers and the computations in flight. Safe to use from several threads, and shared by concurrent runs."""

    def __init__(self, memory: MemoryCache | None = None, disk: DiskTier | None = None) -> None:
        self.memory = memory if memory is not None else MemoryCache()
        self.disk = disk
        self.outputs = OutputFiles()
        self._flights: dict[str, list[Wake]] = {}
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return key in self.memory or (self.disk is not None and key in self.disk)

    def where(self, key: str) -> Tier | None:
        """The tier that has it, without reading it."""
        if key in self.memory:
            return "memory"
        return "disk" if self.disk is not None and key in self.disk else None

    def find(self, key: str) -> Found | None:
        """The result, if it is kept; one read from disk is kept in memory from then on."""
        entry = self.memory.get(key)
        if entry is not None:
            return Found(entry, "memory")
        if self.disk is None or key not in self.disk:
            return None
        entry = self.disk.get(key)
        if entry is None:
            return None
        self.memory.put(key, entry)
        return Found(entry, "disk")

    def claim(self, key: str, wake: Wake) -> Found | bool:
        """True: compute it, then `keep` or `release`. False: somebody does; `wake` is called when that ends.

        A result that appeared since the last look is found here.
        """
        with self._lock:
            waiting = self._flights.get(key)
            if waiting is not None:
                waiting.append(wake)
                return False
            if key not in self:
                self._flights[key] = []
                return True
        return self.find(key) or self.claim(key, wake)

    def keep(self, key: str, entry: Entry) -> None:
        """Keep a result in both tiers and let everyone who waits for it know.

        One with a NaN in it is not kept, nor one that cannot be looked at (sparse tensors, arrays of arrays).
        """
        try:
            if not has_nan(entry.outputs):
                self.memory.put(key, entry)
                if self.disk is not None:
                    self.disk.put(key, entry)
        except Exception as error:  # noqa: BLE001  # a pack's own value: its attributes and comparisons may raise anything
            self.memory.drop(key)
            log.warning("a result is not kept: %s: %s", type(error).__name__, str(error).partition("\n")[0])
        finally:
            self.release(key)

    def release(self, key: str) -> None:
        """The computation ended, with or without a result."""
        with self._lock:
            waiting = self._flights.pop(key, ())
        for wake in waiting:
            wake()

    def clear(self) -> None:
        """Forget what is in memory; the disk keeps its own."""
        self.memory.clear()

    @property
    def is_flushed(self) -> bool:
        """Whether everything kept so far is on disk, as far as it goes there."""
        return self.disk is None or not self.disk.unwritten

    def flush(self) -> None:
        """Wait until everything kept so far is on disk."""
        if self.disk is not None:
            self.disk.flush()

    def close(self) -> None:
        """Write what is left and stop."""
        if self.disk is not None:
            self.disk.close()


def as_store(cache: "MemoryCache | ResultStore | None") -> ResultStore:
    """A store round a memory cache; a store itself; a fresh one."""
    return cache if isinstance(cache, ResultStore) else ResultStore(cache)
