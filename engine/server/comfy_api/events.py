"""`GET /api/v2/jobs/{id}/events`: status, progress, preview and output, as server-sent events.

Each carries the number of the stored event behind it, so a reader that names the last one it saw goes on there. Of
several made by one stored event the last has its number, those before it NUMBER.PLACE: a cut between them loses none.
"""

import asyncio
import base64
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

from aiohttp import web

from sigmagraph.engine.execution import events as run
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.access.origin import own_origin
from sigmagraph.engine.server.comfy_api.job_json import STATUSES, output_record, shown_by
from sigmagraph.engine.server.comfy_api.progress import Snapshot
from sigmagraph.engine.server.comfy_api.refusals import Declined
from sigmagraph.engine.server.context import JOBS, OWNER, OwnerFolders, compact, folders

__all__ = ["events"]

KEEP_ALIVE_S = 15.0
BETWEEN_S = 0.2  # pieces of progress that come faster are told as one
MOST_WAITING = 256  # pictures; of events as many more, and the rest stay in the store until they are read
LONGEST_NUMBER = 18  # digits
Mark = tuple[int, float]
"""A stored event's number and the place among what it made; the last one's place is infinite."""
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def events(request: web.Request) -> web.StreamResponse:
    """The events after `Last-Event-ID` (or `?after=`), to the last."""
    jobs, owner = request.app[JOBS], request[OWNER]
    job = await jobs.get(request.match_info["id"], owner)
    after = _mark(request.headers.get("Last-Event-ID") or request.query.get("after", "0"))
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    telling = _Telling(job, own_origin(request), folders(request), after)
    with contextlib.suppress(ConnectionError):
        async for happened in _merged(jobs, job):
            for frame in telling.told(happened) if happened is not None else (b": keep-alive\n\n",):
                await response.write(frame)
        await response.write_eof()
    return response


def _mark(text: str) -> Mark:
    """What an event's id names: NUMBER with all that it made, or NUMBER.PLACE."""
    number, dot, place = text.partition(".")
    for part in (number, place) if dot else (number,):
        if not part.isdecimal() or len(part) > LONGEST_NUMBER:
            raise Declined(400, "invalid_request", f"Last-Event-ID {text[:40]!r} is not an event's id")
    return int(number), int(place) if dot else math.inf


async def _merged(jobs: Jobs, job: Job) -> AsyncIterator[JobEvent | Preview | None]:
    """The stored events and the live previews of a job in one stream; None in quiet times."""
    waiting: asyncio.Queue[JobEvent | Preview | BaseException | None] = asyncio.Queue(2 * MOST_WAITING)

    def listener(happened: JobEvent | Preview) -> None:
        if isinstance(happened, Preview) and happened.job_id == job.id and waiting.qsize() < MOST_WAITING:
            waiting.put_nowait(happened)

    async def follow() -> None:
        try:
            async for event in jobs.follow(job.id, job.owner):
                await waiting.put(event)
            await waiting.put(StopAsyncIteration())
        except Exception as error:  # noqa: BLE001  # told to the reader of the queue, who raises it
            await waiting.put(error)

    end_listening = jobs.listen(listener)
    following = asyncio.create_task(follow())
    try:
        while True:
            try:
                happened = await asyncio.wait_for(waiting.get(), KEEP_ALIVE_S)
            except TimeoutError:
                yield None
                continue
            if isinstance(happened, StopAsyncIteration):
                return
            if isinstance(happened, BaseException):
                raise happened
            yield happened
    finally:
        end_listening()
        following.cancel()


class _Telling:
    """What one reader has been told."""

    def __init__(self, job: Job, base: str, places: OwnerFolders, after: Mark) -> None:
        self._job, self._base, self._places, self._after = job, base, places, after
        self._snapshot, self._told_at = Snapshot.of(job), 0.0

    def told(self, happened: JobEvent | Preview) -> Iterator[bytes]:
        """The frames that an event makes."""
        if isinstance(happened, Preview):
            picture = base64.b64encode(happened.data).decode()
            node_id, kind = happened.node_id, happened.content_type
            yield _frame("preview", {"node_id": node_id, "content_type": kind, "data_base64": picture})
            return
        self._snapshot.take(happened)
        number = happened.number
        if (number, math.inf) <= self._after:
            return
        facts = list(self._facts(happened))
        for place, (name, data) in enumerate(facts):
            is_last = place == len(facts) - 1
            if (number, math.inf if is_last else place) > self._after:
                yield _frame(name, data, f"{number}" if is_last else f"{number}.{place}")

    def _facts(self, event: JobEvent) -> Iterator[tuple[str, dict[str, Any]]]:
        match event.body:
            case Queued() | Requeued():
                yield "status", {"status": STATUSES[State.QUEUED], "queue_position": None}
            case Started():
                yield "status", {"status": STATUSES[State.RUNNING], "queue_position": None}
            case run.RunStarted() | run.NodeStarted() | run.NodeProgress() if self._is_time():
                yield "progress", self._snapshot.wire()
            case run.NodeFinished(node_id=node_id, ui=ui):
                yield "progress", self._snapshot.wire()
                for shown in shown_by({node_id: ui or {}}, self._places):
                    yield "output", output_record(self._job, shown, self._base)
            case Ended(state=state):
                yield "status", {"status": STATUSES[state], "queue_position": None}

    def _is_time(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._told_at < BETWEEN_S:
            return False
        self._told_at = now
        return True


def _frame(name: str, data: dict[str, Any], event_id: str = "") -> bytes:
    """One event: previews are not stored and have no id."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: {compact(data)}\n\n".encode()
