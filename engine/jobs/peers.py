"""Several servers, one queue: every server knows all that waits, takes what it has room for, and hears of the rest.

Who begins a job is decided by its row: of two servers that want it the second is refused, and lets it go. A server
that is gone gives its running jobs back by no longer living; whoever sees it first has them wait again. What one
server accepts, begins or ends, the others read from the store and publish as their own.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sigmagraph.engine.errors import EngineError, UnknownJob
from sigmagraph.engine.jobs.broadcast import Broadcast
from sigmagraph.engine.jobs.counts import JobCounts
from sigmagraph.engine.jobs.dispatch import Dispatcher
from sigmagraph.engine.jobs.events import JobEvent, Preview, Queued, Requeued, Started, is_last
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.recover import give_up
from sigmagraph.engine.jobs.store import log
from sigmagraph.engine.jobs.store.fronts import ServerPlace, front_of
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.jobs.store.pictures import PicturesHeard

__all__ = ["PAUSED", "Alone", "Peers"]

LOG = logging.getLogger("sigmagraph.jobs")
PAUSED = "paused"
"""The fact that no job begins, for all servers of a database."""
LOOK_S = 1.0
ALL_EVERY = 30
"""Looks; the whole queue is read again so often, whatever was told."""
BLIND = 5
"""Looks, after the database was away, in which no job is taken from a server that is not seen: it may be about to come
back, too."""
OPEN = State.QUEUED, State.RUNNING
MOST_TOLD_LATE = 10_000


class Alone:
    """A server that shares with nobody: everything is its own."""

    count, is_first = 1, True

    def __init__(self, open_jobs: Callable[[], int]) -> None:
        self.open_jobs = open_jobs

    async def take(self, names: Sequence[str], most: int) -> Set[str]:
        """All of them."""
        return set(names[:most])

    async def give_back(self, name: str) -> None:
        """Nobody else would have it."""


class Peers:
    """The other servers of this one's database, on the event loop. `learnt` is called when a kept fact is another."""

    def __init__(
        self,
        store: JobStore,
        place: ServerPlace,
        dispatcher: Dispatcher,
        broadcast: Broadcast,
        learnt: Callable[[str], None],
        counts: JobCounts,
    ) -> None:
        self._job_counts = counts
        self._store, self._place, self._dispatcher, self._learnt = store, place, dispatcher, learnt
        self._broadcast, self._pictures = broadcast, PicturesHeard()
        broadcast.carry = self._carry
        self._heard: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._living = {place.number}
        self._told_late: dict[str, int] = {}
        self._counts = deque([1], 3)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """How many servers there are, this one included. One that is gone counts for three looks more.

        It may be about to come back: after a restart of the database whoever is first sees nobody else.
        """
        return max(self._counts)

    def _saw(self, living: set[int]) -> None:
        self._living = living
        self._counts.append(max(1, len(living)))

    @property
    def is_first(self) -> bool:
        """Whether what one server is enough for (webhooks, what time does to jobs) is this one's to do."""
        return self._place.number == min(self._living, default=0)

    async def listen(self) -> None:
        """Miss nothing from now on; what is heard is acted upon after `start`."""
        loop = asyncio.get_running_loop()

        def heard(said: Mapping[str, Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed: so is the server
                loop.call_soon_threadsafe(self._heard.put_nowait, said)

        await asyncio.to_thread(self._place.listen, heard)
        self._saw(await asyncio.to_thread(self._place.living))

    def open_jobs(self) -> int:
        """How many jobs wait or run, wherever."""
        return self._job_counts.counts(None).remaining

    async def take(self, names: Sequence[str], most: int) -> Set[str]:
        """Those of these things that are this server's, see `ServerPlace.claim`."""
        return await asyncio.to_thread(self._place.claim, names, most)

    async def give_back(self, name: str) -> None:
        """Another server may have this."""
        await asyncio.to_thread(self._place.unclaim, name)

    def start(self) -> None:
        """Act upon what is heard, and look who lives."""
        self._tasks = [asyncio.create_task(loop()) for loop in (self._hear, self._watch)]

    async def stop(self) -> None:
        """Hear nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hear(self) -> None:
        while True:
            said: Mapping[str, Any] | None = await self._heard.get()
            while said is not None:
                said = await self._what_is_left(said)

    async def _what_is_left(self, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Act upon what was heard. Where the database is gone, what was missed is left to be read once it is back."""
        try:
            await self._act(said)
        except EngineError as problem:
            LOG.warning("what other servers did is not read: %s", problem)
            await asyncio.sleep(LOOK_S)
            return {"missed": True}
        except Exception:  # a note that nobody understands must not keep this server from hearing the next
            LOG.exception("what another server said is passed over")
        return None

    async def _act(self, said: Mapping[str, Any]) -> None:
        if "picture" in said:
            self._pictures.hear(said)
        for job_id, owner, first, last in said.get("events", ()):
            read = partial(log.span, job_id=job_id, owner=owner, first=first, last=last)
            events = await self._store.database.read(read)
            await self._pass_on([event for event in events if event.number > self._told_late.get(job_id, 0)])
        for kind, name in said.get("news", ()):
            if kind == "job":
                await self._look_at(name)
            elif kind == "gone":
                self._store.changed(None)
            else:
                self._learnt(name)
        if said.get("missed"):
            await self._catch_up()
        if "missed" in said:
            await self._read_all()

    async def _pass_on(self, events: Sequence[JobEvent]) -> None:
        """Events of one job that another server committed: told here, and acted upon."""
        if events:
            self._tell(events, self._pictures.take(events[0].job_id))
        for event in events:
            await self._follow(event)

    def _carry(self, preview: Preview) -> None:
        """A picture of a job that runs here goes to the others, where there are any."""
        if self.count > 1:
            self._place.pictures.put(preview)

    def _tell(self, events: Sequence[JobEvent], pictures: Sequence[Preview]) -> None:
        """Events of a job with the pictures of before them: after its start, before its end, else after its events."""
        is_start = any(isinstance(event.body, Started) for event in events)
        is_end = any(is_last(event) for event in events)
        if pictures and is_start:
            self._broadcast.hold(events[0].job_id)  # until the start is told
        come_first = is_start or is_end
        for preview in pictures if come_first else ():
            self._broadcast.bring(preview)
        self._store.hear(events)
        for preview in () if come_first else pictures:
            self._broadcast.bring(preview)

    async def _follow(self, event: JobEvent) -> None:
        """What another server did to a job."""
        match event.body:
            case Queued():
                await self._look_at(event.job_id)
            case Requeued(attempt):
                self._dispatcher.taken(event.job_id, attempt)
                await self._look_at(event.job_id)
            case Started(attempt):
                self._dispatcher.taken(event.job_id, attempt - 1)
                self._dispatcher.remove(event.job_id)
            case _ if is_last(event):
                self._dispatcher.remove(event.job_id)

    async def _look_at(self, job_id: str) -> None:
        """A job as its row is now: it may wait, have another place, or be wanted no more."""
        self._store.changed(job_id)
        try:
            job = await self._store.get(job_id)
        except UnknownJob:
            self._dispatcher.remove(job_id)
            return
        if job.state is not State.QUEUED:
            self._dispatcher.remove(job_id)
        elif not self._dispatcher.runs(job_id):
            self._dispatcher.add(replace(job, request=None), job.request)
        if job.cancel_requested and job.state is State.RUNNING:
            self._dispatcher.tell_to_stop(job_id)

    async def _read_all(self) -> None:
        """Everything that waits, and nothing else."""
        self._store.changed(None)
        waiting = {job.id: job for job in await self._store.by_state(State.QUEUED)}
        for job_id in self._dispatcher.waiting() - waiting.keys():
            await self._look_at(job_id)
        for job_id in waiting.keys() - self._dispatcher.waiting():
            await self._look_at(job_id)

    async def _catch_up(self) -> None:
        """Tell what others did while nothing was heard: who waits for a job that ended then would wait for ever."""
        self._learnt(PAUSED)
        heard = self._job_counts.last_events()
        there = {job.id: job for state in OPEN for job in await self._store.by_state(state)}
        elsewhere = [job.id for job in there.values() if front_of(job.worker) not in (0, self._place.number)]
        if len(self._told_late) > MOST_TOLD_LATE:
            self._told_late.clear()
        for job_id in {*heard, *elsewhere, *self._broadcast.followed()}:
            with suppress(UnknownJob):  # over, and deleted since
                job = there.get(job_id) or await self._store.get(job_id)
                self._dispatcher.taken(job_id, job.attempt - (job.state is State.RUNNING))
                if job.cancel_requested:
                    self._dispatcher.tell_to_stop(job_id)
                await self._tell_since(job, heard.get(job_id), 0 if job_id in elsewhere else job.events - 1)

    async def _tell_since(self, job: Job, heard: int | None, otherwise: int) -> None:
        """The events of a job above the last one heard, unless this server tells of it itself."""
        after = otherwise if heard is None else heard
        if job.events <= after or self._dispatcher.runs(job.id):
            return
        read = partial(log.span, job_id=job.id, owner=job.owner, first=after + 1, last=job.events)
        events = await self._store.database.read(read)
        last = self._job_counts.last_event(job.id)
        if heard is not None and last is None:  # its end was told meanwhile
            return
        self._told_late[job.id] = job.events  # a note of it may still be under way
        await self._pass_on([event for event in events if event.number > (last or 0)])

    async def _watch(self) -> None:
        """Who lives, and whether the jobs of one that does not are to be given back."""
        looks, seen = 0, BLIND
        while True:
            try:
                self._saw(await asyncio.to_thread(self._place.living))
                seen += 1
                if seen > BLIND:
                    await self._give_up()
                if looks % ALL_EVERY == ALL_EVERY - 1:
                    self._heard.put_nowait({"missed": False})
                looks += 1
            except EngineError as problem:
                self._living, seen = set(), 0
                LOG.warning("other servers are not seen: %s", problem)
            await asyncio.sleep(LOOK_S)

    async def _give_up(self) -> None:
        """Have the jobs wait again of servers that are gone."""
        for job in await give_up(self._store, self._living, self._dispatcher.running()):
            self._pictures.take(job.id)
            await self._look_at(job.id)
