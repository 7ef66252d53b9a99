"""Long lists of whole jobs as JSON: read, written and sent a few at a time, so that no list is ever in memory whole."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import UnknownJob
from sigmagraph.engine.execution.events import RunCancelled, RunFailed
from sigmagraph.engine.jobs.events import JobEvent
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.context import OWNER, compact

__all__ = ["LISTINGS", "Line", "Listings", "failure_of", "joined", "lines", "member", "send_json"]

Line = Callable[[Job, JobEvent | None], str]
"""A job, and why it failed, as JSON."""
AT_ONCE_BYTES = 256 * 1024
"""What is gathered before it is sent, and what one reading aims at; a list below it is one plain reply."""
MOST_TOGETHER = 32
PER_OWNER = 2  # lists of one owner that are being made; further ones wait for their turn
PATIENCE_S = 60.0  # for a reader that takes nothing


class Listings:
    """Whose turn it is to be told a list: an owner's readers wait for each other, never for another's."""

    def __init__(self) -> None:
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_OWNER))

    def turn(self, owner: str) -> asyncio.Semaphore:
        """What to hold while a list is made."""
        return self._turns[owner]


LISTINGS: web.AppKey[Listings] = web.AppKey("listings", Listings)


async def failure_of(jobs: Jobs, job: Job) -> JobEvent | None:
    """The stored event of a run that failed or was interrupted; it is among the last."""
    if job.state not in (State.FAILED, State.CANCELLED) or job.is_withdrawn:
        return None
    events = await jobs.events(job.id, job.owner, after=max(0, job.events - 3))
    return next((event for event in reversed(events) if isinstance(event.body, RunFailed | RunCancelled)), None)


async def lines(jobs: Jobs, ids: Sequence[str], line: Line) -> AsyncIterator[list[str]]:
    """The jobs of these ids, each as a piece of JSON, a few at a time; those that are gone by now are left out."""
    place, together = 0, 1
    while place < len(ids):
        found = [await _whole(jobs, job_id) for job_id in ids[place : place + together]]
        known = [entry for entry in found if entry is not None]
        made = await asyncio.to_thread(_written, known, line)
        place += together
        size = sum(map(len, made)) // max(1, len(made))
        together = max(1, min(MOST_TOGETHER, AT_ONCE_BYTES // max(1, size)))
        yield made


def _written(found: Sequence[tuple[Job, JobEvent | None]], line: Line) -> list[str]:
    return [line(job, failed) for job, failed in found]


async def _whole(jobs: Jobs, job_id: str) -> tuple[Job, JobEvent | None] | None:
    try:
        job = await jobs.get(job_id)
        return job, await failure_of(jobs, job)
    except UnknownJob:
        return None


async def send_json(request: web.Request, parts: AsyncIterator[str]) -> web.StreamResponse:
    """Parts of one JSON document: as a plain reply where they are short, else one after the other as they come."""
    if request.method == "HEAD":
        return web.Response(content_type="application/json", charset="utf-8")
    async with request.app[LISTINGS].turn(request[OWNER]):
        begun, size = [], 0
        async for part in parts:
            begun.append(part)
            size += len(part)
            if size > AT_ONCE_BYTES:
                return await _stream(request, begun, parts)
    return web.Response(text="".join(begun), content_type="application/json", charset="utf-8")


async def _stream(request: web.Request, begun: Iterable[str], rest: AsyncIterator[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
    await response.prepare(request)
    await response.write("".join(begun).encode())
    async for part in rest:
        async with asyncio.timeout(PATIENCE_S):
            await response.write(part.encode())
    await response.write_eof()
    return response


async def joined(groups: AsyncIterator[list[str]]) -> AsyncIterator[str]:
    """The pieces of a JSON list or object, commas between them."""
    is_first = True
    async for group in groups:
        if group:
            yield ("" if is_first else ",") + ",".join(group)
            is_first = False


def member(name: str, value: Any) -> str:
    """One member of a JSON object."""
    return f"{compact(name)}:{compact(value)}"
