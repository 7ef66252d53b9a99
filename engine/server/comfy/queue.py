"""The queue, the history, and stopping."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import IllegalMove, UnknownJob
from sigmagraph.engine.jobs.job import ENDED, JobQuery, State
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.comfy.hub import HUB
from sigmagraph.engine.server.comfy.job_json import history_entry, queue_item
from sigmagraph.engine.server.comfy.streamed_lists import failure_of, joined, lines, member, send_json
from sigmagraph.engine.server.context import JOBS, OWNER, compact, empty, reply
from sigmagraph.engine.server.transport.request_bodies import object_body

__all__ = ["cancel", "change_history", "change_queue", "history", "interrupt", "one_history", "queue"]

MOST = 10_000


async def queue(request: web.Request) -> web.StreamResponse:
    """`GET /queue`: what runs and what waits."""
    waiting, running = [await _ids(request, state) for state in (State.QUEUED, State.RUNNING)]
    begun = set(running)
    waiting = [job_id for job_id in waiting if job_id not in begun]
    return await send_json(request, _queue(request.app[JOBS], running, waiting))


async def _ids(request: web.Request, state: State) -> Sequence[str]:
    query = JobQuery(request[OWNER], frozenset({state}), by="number", newest_first=False, limit=MOST)
    return await request.app[JOBS].ids(query)


async def _queue(jobs: Jobs, running: Sequence[str], waiting: Sequence[str]) -> AsyncIterator[str]:
    for head, ids in (('{"queue_running":[', running), ('],"queue_pending":[', waiting)):
        yield head
        async for part in joined(lines(jobs, ids, lambda job, _: compact(queue_item(job)))):
            yield part
    yield "]}"


async def change_queue(request: web.Request) -> web.Response:
    """`POST /queue`: remove waiting jobs; running and unknown ones are left alone."""
    body, jobs, owner = await object_body(request), request.app[JOBS], request[OWNER]
    if body.get("clear"):
        await jobs.cancel_all(owner, running=False)
    for job_id in _named(body.get("delete")):
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


async def history(request: web.Request) -> web.StreamResponse:
    """`GET /history`: ended jobs in the order they ended; the last ones, or from an offset on.

    A job that was deleted while it waited is gone, as for ComfyUI's users.
    """
    limit, offset = _integer(request, "max_items", MOST), _integer(request, "offset", -1)
    is_tail = offset < 0
    limit = max(0, min(limit, MOST))
    query = JobQuery(
        request[OWNER],
        ENDED,
        by="ended_at",
        newest_first=is_tail,
        limit=limit,
        offset=max(0, offset),
        with_withdrawn=False,
    )
    found = list(await request.app[JOBS].ids(query)) if limit > 0 else []
    return await send_json(request, _history(request.app[JOBS], found[::-1] if is_tail else found))


async def _history(jobs: Jobs, ids: Sequence[str]) -> AsyncIterator[str]:
    yield "{"
    async for part in joined(lines(jobs, ids, lambda job, failed: member(job.id, history_entry(job, failed)))):
        yield part
    yield "}"


async def one_history(request: web.Request) -> web.Response:
    """`GET /history/{id}`: one entry; `{}` for a job that is unknown or not over."""
    jobs = request.app[JOBS]
    try:
        seen = await jobs.look(request.match_info["id"], request[OWNER])
        if not seen.state.is_end or seen.is_withdrawn:
            return reply({})
        job = await jobs.get(request.match_info["id"], request[OWNER])
    except UnknownJob:
        return reply({})
    return reply({job.id: history_entry(job, await failure_of(jobs, job))})


async def change_history(request: web.Request) -> web.Response:
    """`POST /history`: forget ended jobs."""
    body, jobs, owner = await object_body(request), request.app[JOBS], request[OWNER]
    if body.get("clear"):
        await jobs.delete_ended(owner)
        await request.app[HUB].deleted(owner, None)
    gone = []
    for job_id in _named(body.get("delete")):
        with contextlib.suppress(UnknownJob, IllegalMove):
            await jobs.delete(job_id, owner)
            gone.append(job_id)
    if gone:
        await request.app[HUB].deleted(owner, gone)
    return empty()


def _named(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _integer(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is not a whole number: {text!r}") from None
