"""Who is next: few places, many owners. Who used least time of late goes first, and nobody holds every place.

    queue --> waits --(a place is free, it is its owner's turn)--> holds a place --leave--> gone
                +--leave--> gone

Knows no processes and no pictures.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Shares", "Turn"]

HALF_LIFE_S = 60.0
FORGOTTEN_S = 0.01


@dataclass(slots=True, eq=False)
class Turn:
    """One request's place in the line; `ready` is set when it holds one of the places."""

    owner: str
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Shares:
    """`places` for all, one of them always left to others; `clock` counts seconds."""

    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        self._places, self._each, self._clock = places, max(1, places - 1), clock
        self._lines: dict[str, deque[Turn]] = {}
        self._held: Counter[str] = Counter()
        self._used: dict[str, tuple[float, float]] = {}  # seconds of late, and when that was so

    def waiting(self, owner: str | None = None) -> int:
        """How many wait, of one owner or of all."""
        return sum(map(len, self._lines.values())) if owner is None else len(self._lines.get(owner, ()))

    def queue(self, owner: str) -> Turn:
        """Stand in line."""
        turn = Turn(owner)
        self._lines.setdefault(owner, deque()).append(turn)
        self._look()
        return turn

    def leave(self, turn: Turn) -> None:
        """Give the place back, or stand in line no longer."""
        if turn.ready.is_set():
            self._held[turn.owner] -= 1
            self._held += Counter()  # without zeros
        else:
            self._lines[turn.owner].remove(turn)
            self._tidy(turn.owner)
        self._look()

    def charge(self, owner: str, seconds: float) -> None:
        """So much was used for this owner."""
        self._used[owner] = (self.used(owner) + seconds, self._clock())
        for forgotten in [name for name in self._used if self.used(name) < FORGOTTEN_S]:
            del self._used[forgotten]

    def used(self, owner: str) -> float:
        """Seconds used of late; half as many a minute later."""
        seconds, at = self._used.get(owner, (0.0, 0.0))
        return seconds * math.pow(0.5, (self._clock() - at) / HALF_LIFE_S)

    def _look(self) -> None:
        while self._held.total() < self._places:
            owners = [owner for owner in self._lines if self._held[owner] < self._each]
            if not owners:
                return
            owner = min(owners, key=lambda name: (self._held[name], self.used(name)))
            turn = self._lines[owner].popleft()
            self._tidy(owner)
            self._held[owner] += 1
            turn.ready.set()

    def _tidy(self, owner: str) -> None:
        if not self._lines[owner]:
            del self._lines[owner]
