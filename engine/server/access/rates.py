"""Token buckets: how many calls a key may make, and when the next one is free. Knows keys only by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Buckets", "Taken"]

MINUTE_S = 60.0
MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What a bucket says: whether the call may go on, tokens left, seconds to the next one and to a full bucket."""

    is_allowed: bool
    remaining: int
    wait_s: float
    full_s: float


class Buckets:
    """A bucket per key, of one minute's calls, filled evenly. Lives in the front's memory; a restart fills all.

    Where several servers answer for one queue, each gives its part of a rate, so that all together keep it.
    """

    def __init__(self, clock: Callable[[], float], servers: Callable[[], int] = lambda: 1) -> None:
        self._clock, self._servers = clock, servers
        self._filled: dict[str, tuple[float, float, float]] = {}

    def take(self, key: str, per_minute: float) -> Taken:
        """Take one token if there is one."""
        taken, level = self._state(key, per_minute, 1.0)
        now = self._clock()
        self._forget_full(now)
        self._filled[key] = (level, now, now + taken.full_s)
        return taken

    def look(self, key: str, per_minute: float) -> Taken:
        """What taking one would say; nothing is taken."""
        return self._state(key, per_minute, 0.0)[0]

    def _state(self, key: str, per_minute: float, wanted: float) -> tuple[Taken, float]:
        per_minute /= self._servers()
        now, capacity = self._clock(), max(1.0, per_minute)
        rate = per_minute / MINUTE_S
        level, at, _ = self._filled.get(key, (capacity, now, now))
        level = min(capacity, level + (now - at) * rate)
        is_allowed = level >= 1.0
        level -= wanted if is_allowed else 0.0
        wait_s, full_s = 0.0 if level >= 1.0 else (1.0 - level) / rate, (capacity - level) / rate
        return Taken(is_allowed, math.floor(level), wait_s, full_s), level

    def _forget_full(self, now: float) -> None:
        """Keep the number of buckets bounded: one that is full again is as good as none."""
        if len(self._filled) >= MOST_KEYS:
            self._filled = {key: bucket for key, bucket in self._filled.items() if now < bucket[2]}
