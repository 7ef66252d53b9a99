"""Who is told what happens, while it happens: listeners of everything, and followers of one job.

A follower that falls behind loses its place in memory, not an event: it reads on from the store.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sigmagraph.engine.jobs.events import JobEvent, Preview, Started, is_last
from sigmagraph.engine.jobs.protocol import Listener

__all__ = ["Broadcast", "Follower"]

LOG = logging.getLogger("sigmagraph.jobs")
KEPT = 256
Reads = Callable[[int], Awaitable[Sequence[JobEvent]]]
"""Stored events above a number."""


@dataclass(slots=True, eq=False)
class Follower:
    """What came for one follower since it last looked; the oldest are dropped when there is too much."""

    recent: deque[JobEvent] = field(default_factory=lambda: deque(maxlen=KEPT))
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> list[JobEvent]:
        """What came, once."""
        self.news.clear()
        taken = list(self.recent)
        self.recent.clear()
        return taken


class Broadcast:
    """Hands events on, on the event loop, in the order they were committed."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._next = 0
        self._followers: defaultdict[str, set[Follower]] = defaultdict(set)
        self._held: dict[str, list[Preview]] = {}
        self._asked: set[str] = set()
        self._delayed: dict[str, list[JobEvent | Preview]] = {}
        self.carry: Callable[[Preview], None] = lambda preview: None
        """Called with every picture of a job that runs here: other servers show it too."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have a function called with everything; returns what ends it."""
        number, self._next = self._next, self._next + 1
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    def publish(self, event: JobEvent) -> None:
        """Tell everyone what was committed."""
        if (delayed := self._delayed.get(event.job_id)) is not None:
            delayed.append(event)
            return
        self._tell(event)
        for follower in self._followers.get(event.job_id, ()):
            follower.recent.append(event)
            follower.news.set()
        if self._held and isinstance(event.body, Started):
            self._has_begun(event.job_id)

    def _has_begun(self, job_id: str) -> None:
        """Its pictures may follow, or wait on with all that happens to it."""
        pictures = self._held.pop(job_id, [])
        if job_id in self._asked:
            self._asked.discard(job_id)
            self._delayed[job_id] = [*pictures]
        for picture in pictures if job_id not in self._delayed else ():
            self._tell(picture)

    def hold(self, job_id: str, *, is_asked: bool = False) -> None:
        """Nobody knows of this job: its pictures wait until its start is published, or `drop` is called.

        Somebody who `is_asked` has no answer then: what happens to the job after its start waits for `go_on`, while it
        is written.
        """
        self._held[job_id] = []
        if is_asked:
            self._asked.add(job_id)

    def is_delayed(self, job_id: str) -> bool:
        """Whether what happens to a job is kept back until `go_on` is called."""
        return job_id in self._delayed

    def go_on(self, job_id: str) -> None:
        """Tell what was kept back, in its order."""
        for what in self._delayed.pop(job_id, ()):
            if isinstance(what, JobEvent):
                self.publish(what)
            else:
                self.bring(what)

    def drop(self, job_id: str) -> None:
        """There is no such job after all."""
        self._held.pop(job_id, None)
        self._asked.discard(job_id)
        self._delayed.pop(job_id, None)

    def show(self, preview: Preview) -> None:
        """Tell listeners here and elsewhere of a picture of a job that runs here."""
        self.carry(preview)
        self.bring(preview)

    def bring(self, preview: Preview) -> None:
        """Tell listeners of a picture, wherever its job runs."""
        held = self._delayed.get(preview.job_id, self._held.get(preview.job_id))
        if held is None:
            self._tell(preview)
        else:
            held.append(preview)

    @contextmanager
    def following(self, job_id: str) -> Iterator[Follower]:
        """A follower of one job, for as long as the block lasts."""
        follower = Follower()
        self._followers[job_id].add(follower)
        try:
            yield follower
        finally:
            self._followers[job_id].discard(follower)
            if not self._followers[job_id]:
                del self._followers[job_id]

    def followed(self) -> list[str]:
        """The jobs that somebody follows."""
        return list(self._followers)

    async def follow(self, job_id: str, after: int, read: Reads) -> AsyncIterator[JobEvent]:
        """Events above `after`: stored ones, then as they come, to the last."""
        with self.following(job_id) as follower:
            is_live = False  # once the store has no more, everything that follows comes to the follower
            while True:
                taken = follower.take()
                events = [event for event in taken if event.number > after]
                if not events and any(map(is_last, taken)):  # it says that it heard more than there was
                    return
                if events[0].number != after + 1 if events else not is_live:
                    events = list(await read(after))
                is_live = not events or is_live
                for event in events:
                    after = event.number
                    yield event
                    if is_last(event):
                        return
                if is_live and not follower.recent:
                    await follower.news.wait()

    def _tell(self, what: JobEvent | Preview) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(what)
            except Exception:  # its fault must not keep others from hearing, nor who waits for this commit waiting
                LOG.exception("a listener failed", extra={"job": what.job_id})
