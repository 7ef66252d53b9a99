"""The queue, the history, and stopping."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import IllegalMove, UnknownJob
from sigmagraph.engine.execution.events import RunFailed
from sigmagraph.engine.jobs.events import JobEvent
from sigmagraph.engine.jobs.job import ENDED, Job, JobQuery, State
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.bodies import object_body
from sigmagraph.engine.server.comfy.records import history_entry, queue_item
from sigmagraph.engine.server.context import JOBS, OWNER, empty, reply

__all__ = ["cancel", "change_history", "change_queue", "failure_of", "history", "interrupt", "one_history", "queue"]

MOST = 10_000


async def queue(request: web.Request) -> web.Response:
    """`GET /queue`: what runs and what waits."""
    states = frozenset({State.QUEUED, State.RUNNING})
    query = JobQuery(request[OWNER], states, by="number", newest_first=False, limit=MOST, with_request=True)
    jobs = (await request.app[JOBS].find(query)).jobs
    running = [queue_item(job) for job in jobs if job.state is State.RUNNING]
    pending = [queue_item(job) for job in jobs if job.state is State.QUEUED]
    return reply({"queue_running": running, "queue_pending": pending})


async def change_queue(request: web.Request) -> web.Response:
    """`POST /queue`: remove waiting jobs; running and unknown ones are left alone."""
    body, jobs, owner = await object_body(request), request.app[JOBS], request[OWNER]
    if body.get("clear"):
        await jobs.cancel_all(owner, running=False)
    for job_id in _ids(body.get("delete")):
        await cancel(jobs, job_id, owner, State.QUEUED)
    return empty()


async def interrupt(request: web.Request) -> web.Response:
    """`POST /interrupt`: stop the job named if it runs, or whatever runs where none is named."""
    body, jobs, owner = await object_body(request), request.app[JOBS], request[OWNER]
    job_id = body.get("prompt_id")
    if job_id is None:
        await jobs.cancel_all(owner, queued=False)
    else:
        await cancel(jobs, str(job_id), owner, State.RUNNING)
    return empty()


async def cancel(jobs: Jobs, job_id: str, owner: str, *states: State) -> None:
    """Cancel a job that is in one of the states; anything else is left as it is."""
    with contextlib.suppress(UnknownJob, IllegalMove):
        if (await jobs.get(job_id, owner)).state in states:
            await jobs.cancel(job_id, owner)


async def history(request: web.Request) -> web.Response:
    """`GET /history`: ended jobs in the order they ended; the last ones, or from an offset on."""
    limit, offset = _integer(request, "max_items", MOST), _integer(request, "offset", -1)
    is_tail = offset < 0
    query = JobQuery(
        request[OWNER],
        ENDED,
        by="ended_at",
        newest_first=is_tail,
        limit=max(0, min(limit, MOST)),
        offset=max(0, offset),
        with_request=True,
    )
    jobs = list((await request.app[JOBS].find(query)).jobs) if limit > 0 else []
    return reply(await _entries(request.app[JOBS], reversed(jobs) if is_tail else jobs))


async def one_history(request: web.Request) -> web.Response:
    """`GET /history/{id}`: one entry; `{}` for a job that is unknown or not over."""
    try:
        job = await request.app[JOBS].get(request.match_info["id"], request[OWNER])
    except UnknownJob:
        return reply({})
    return reply(await _entries(request.app[JOBS], [job] if job.state.is_end else []))


async def change_history(request: web.Request) -> web.Response:
    """`POST /history`: forget ended jobs."""
    body, jobs, owner = await object_body(request), request.app[JOBS], request[OWNER]
    if body.get("clear"):
        await jobs.delete_ended(owner)
    for job_id in _ids(body.get("delete")):
        with contextlib.suppress(UnknownJob, IllegalMove):
            await jobs.delete(job_id, owner)
    return empty()


async def failure_of(jobs: Jobs, job: Job) -> JobEvent | None:
    """The stored event of a failed run; it is among the last."""
    if job.state is not State.FAILED:
        return None
    events = await jobs.events(job.id, job.owner, after=max(0, job.events - 3))
    return next((event for event in reversed(events) if isinstance(event.body, RunFailed)), None)


async def _entries(jobs: Jobs, ended: Iterable[Job]) -> dict[str, Any]:
    listed = list(ended)
    failures = await asyncio.gather(*(failure_of(jobs, job) for job in listed))
    return {job.id: history_entry(job, failed) for job, failed in zip(listed, failures, strict=True)}


def _ids(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _integer(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is no whole number: {text!r}") from None
