"""What waits to be sent to clients. One that reads slowly loses stale progress, and in the end its socket.

All that waits has a budget, per owner and in all; a message that several clients wait for is one copy and counts once.
"""

from asyncio import Event
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import count

__all__ = ["Outbox", "UnsentBudget"]

PATIENCE = 64  # as long as fewer messages wait, every one is sent
MOST_MESSAGES = 50_000
TOGETHER_BYTES = 32 * 1024
PER_OWNER, IN_ALL = 64 * 1024 * 1024, 192 * 1024 * 1024
"""Bytes that may wait."""


class UnsentBudget:
    """What waits in all outboxes together. Over it, the fullest is closed: first an owner's own, then anybody's."""

    def __init__(self, per_owner: int = PER_OWNER, in_all: int = IN_ALL) -> None:
        self.per_owner, self.in_all = per_owner, in_all
        self.sizes: Counter[str] = Counter()
        self._copies: Counter[tuple[str, int]] = Counter()
        self._boxes: dict[Outbox, str] = {}

    @property
    def size(self) -> int:
        """Bytes that wait, of every owner."""
        return self.sizes.total()

    def join(self, box: "Outbox", owner: str) -> None:
        """From now on the outbox is counted."""
        self._boxes[box] = owner

    def leave(self, box: "Outbox") -> None:
        """The outbox is closed."""
        self._boxes.pop(box, None)

    def take(self, owner: str, message: str | bytes) -> None:
        """A message waits once more; makes room where there is too little."""
        self._copies[owner, id(message)] += 1
        if self._copies[owner, id(message)] == 1:
            self.sizes[owner] += len(message)
        while self.sizes[owner] > self.per_owner and self._close_fullest(owner):
            pass
        while self.size > self.in_all and self._close_fullest(None):
            pass

    def give(self, owner: str, message: str | bytes) -> None:
        """A message waits once less."""
        key = owner, id(message)
        self._copies[key] -= 1
        if not self._copies[key]:
            del self._copies[key]
            self.sizes[owner] -= len(message)
            if not self.sizes[owner]:
                del self.sizes[owner]

    def _close_fullest(self, owner: str | None) -> bool:
        boxes = [box for box, whose in self._boxes.items() if owner in (None, whose) and box.size]
        if not boxes:
            return False
        max(boxes, key=lambda box: box.size).close()
        return True


class Outbox:
    """Messages in order; a waiting one is replaced by a newer one of the same key once the client lags behind.

    A message may come with what is to be called once it is sent.
    """

    def __init__(self, budget: UnsentBudget | None = None, owner: str = "") -> None:
        self.closed = Event()
        self.size = 0
        self._budget, self._owner = budget or UnsentBudget(), owner
        self._waiting: dict[int, tuple[str | bytes, Callable[[], None] | None]] = {}
        self._turns = count()
        self._last: dict[str, int] = {}
        self._filled = Event()
        self._budget.join(self, owner)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is sent any more."""
        return self.closed.is_set()

    def put(self, message: str | bytes, replaces: str | None = None, then: Callable[[], None] | None = None) -> None:
        """Queue a message; a client that is hopelessly behind is closed instead."""
        if self.is_closed:
            return
        key = next(self._turns)
        if replaces is not None:
            stale = self._last.get(replaces)
            if stale is not None and len(self._waiting) > PATIENCE and stale in self._waiting:
                self._take(stale)
            self._last[replaces] = key
        self._waiting[key] = message, then
        self.size += len(message)
        self._budget.take(self._owner, message)
        if len(self._waiting) > MOST_MESSAGES:
            self.close()
        self._filled.set()

    def close(self) -> None:
        """Send nothing more."""
        self.closed.set()
        for key in list(self._waiting):
            self._take(key)
        self._budget.leave(self)
        self._last.clear()
        self._filled.set()

    async def drain(self) -> AsyncIterator[list[str | bytes]]:
        """Messages as they come, until closed: those that wait together, up to `TOGETHER_BYTES` of several."""
        while not self.is_closed:
            if not self._waiting:
                self._last.clear()
                self._filled.clear()
                await self._filled.wait()
                continue
            messages, calls, size = [], [], 0
            while self._waiting and size < TOGETHER_BYTES:
                message, then = self._take(next(iter(self._waiting)))
                messages.append(message)
                size += len(message)
                calls += [then] if then is not None else []
            yield messages
            for call in calls:
                call()

    def _take(self, key: int) -> tuple[str | bytes, Callable[[], None] | None]:
        message, then = self._waiting.pop(key)
        self.size -= len(message)
        self._budget.give(self._owner, message)
        return message, then
