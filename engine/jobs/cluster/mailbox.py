"""`Mailbox`: the conversation of a worker that is called, not connected: the front says and hears when it likes.

A frame stays until the front asks for what comes after it, so a call that broke off on the way loses nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Condition
from typing import Any

from sigmagraph.engine.jobs.workers.ipc import pack

__all__ = ["INLINE_BYTES", "Mailbox", "Parcel", "joined"]

INLINE_BYTES = 64 << 10
"""What travels inside an answer. Ray sends up to 100 KiB so, without its object store."""
MOST_PENDING_BYTES = 256 << 20
"""With so much unheard, pictures of work in progress are left out."""
FULL_S = 30.0
"""After the object store was full, parcels go in pieces for so long."""

Offer = Callable[[bytes], Any]
"""Puts bytes where the front can fetch them; what it answers travels instead. None where there is no room."""
Parcel = tuple[bool, Any]
"""Bytes, or what `Offer` answered for them; True where the frame goes on with the next parcel."""


class Mailbox:
    """Frames to the front, numbered from 1, and messages from it. Safe to use from several threads."""

    def __init__(self, offer: Offer = lambda data: None, clock: Callable[[], float] = time.monotonic) -> None:
        self._offer, self._clock = offer, clock
        self._said: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._parcels: deque[Parcel] = deque()
        self._sizes: deque[int] = deque()
        self._heard = 0
        self._pending = 0
        self._news = Condition()
        self._full_until = 0.0
        self._is_closed = False

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be heard that what can be spared should be."""
        return self._pending > MOST_PENDING_BYTES

    # -- the worker's side ---------------------------------------------------------------------------------------

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """What the front said next; None once it says nothing more."""
        message = self._said.get()
        return (message, b"") if message is not None else None

    def hold(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Have a frame ready with the next one, or at the next `flush`."""
        if self.is_crowded and header.get("picture"):
            header, data = {**header, "picture": None}, b""
        frame = pack(header, data)
        with self._news:
            if not self._is_closed:
                self._parcels.append((False, frame))
                self._sizes.append(len(frame))
                self._pending += len(frame)

    def flush(self) -> None:
        """Let the front hear."""
        with self._news:
            self._news.notify_all()

    def send(self, header: dict[str, Any], data: bytes = b"") -> None:
        """Both."""
        self.hold(header, data)
        self.flush()

    # -- the front's side ----------------------------------------------------------------------------------------

    def say(self, message: dict[str, Any]) -> None:
        """A message to the worker."""
        self._said.put(message)

    def hear(self, after: int, wait_s: float) -> tuple[int, list[Parcel]]:
        """What came behind parcel `after`, or nothing when the time is up; and the number of the last of it."""
        with self._news:
            while self._heard < after and self._parcels:
                self._parcels.popleft()
                self._pending -= self._sizes.popleft()
                self._heard += 1
            if not self._parcels and not self._is_closed:
                self._news.wait(wait_s)
            found: list[Parcel] = []
            room = INLINE_BYTES
            while len(found) < len(self._parcels):
                goes_on, payload = self._wrapped(len(found))
                room -= len(payload) if isinstance(payload, bytes) else 0
                if found and room < 0:
                    break
                found.append((goes_on, payload))
            return self._heard + len(found), found

    def close(self) -> None:
        """Nothing more is said or heard."""
        self._said.put(None)
        with self._news:
            self._is_closed = True
            self._parcels.clear()
            self._sizes.clear()
            self._pending = 0
            self._news.notify_all()

    def _wrapped(self, at: int) -> Parcel:
        """A parcel that can travel: a large frame is offered to the object store, or cut where that has no room."""
        goes_on, payload = self._parcels[at]
        if not isinstance(payload, bytes) or len(payload) <= INLINE_BYTES:
            return goes_on, payload
        offered = self._offer(payload) if self._clock() >= self._full_until else None
        if offered is not None:
            self._parcels[at] = goes_on, offered
            return self._parcels[at]
        self._full_until = self._clock() + FULL_S
        pieces = [payload[start : start + INLINE_BYTES] for start in range(0, len(payload), INLINE_BYTES)]
        del self._parcels[at], self._sizes[at]
        for place, piece in enumerate(pieces):
            self._parcels.insert(at + place, (goes_on or place < len(pieces) - 1, piece))
            self._sizes.insert(at + place, len(piece))
        return self._parcels[at]


def joined(pieces: Sequence[bytes]) -> bytes:
    """The frame again."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
