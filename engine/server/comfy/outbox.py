"""What waits to be sent to one client. A client that reads slowly loses stale progress, and in the end its socket."""

from asyncio import Event
from collections.abc import AsyncIterator, Callable
from itertools import count

__all__ = ["Outbox"]

PATIENCE = 64  # as long as fewer messages wait, every one is sent
MOST_MESSAGES = 50_000
MOST_BYTES = 256 * 1024 * 1024


class Outbox:
    """Messages in order; a waiting one is replaced by a newer one of the same key once the client lags behind.

    A message may come with what is to be called once it is sent.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._waiting: dict[int, tuple[str | bytes, Callable[[], None] | None]] = {}
        self._size = 0
        self._turns = count()
        self._last: dict[str, int] = {}
        self._filled = Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: str | bytes, replaces: str | None = None, then: Callable[[], None] | None = None) -> None:
        """Queue a message; a client that is hopelessly behind is closed instead."""
        if self.is_closed:
            return
        key = next(self._turns)
        if replaces is not None:
            stale = self._last.get(replaces)
            if stale is not None and len(self._waiting) > PATIENCE and stale in self._waiting:
                self._size -= len(self._waiting.pop(stale)[0])
            self._last[replaces] = key
        self._waiting[key] = message, then
        self._size += len(message)
        if len(self._waiting) > MOST_MESSAGES or self._size > MOST_BYTES:
            self.close()
        self._filled.set()

    def close(self) -> None:
        """Send nothing more."""
        self.is_closed = True
        self._waiting.clear()
        self._last.clear()
        self._filled.set()

    async def drain(self) -> AsyncIterator[str | bytes]:
        """Messages as they come, until closed."""
        while not self.is_closed:
            if not self._waiting:
                self._last.clear()
                self._filled.clear()
                await self._filled.wait()
                continue
            message, then = self._waiting.pop(next(iter(self._waiting)))
            self._size -= len(message)
            yield message
            if then is not None:
                then()
