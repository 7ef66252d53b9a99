"""`GET /jobs/{id}/events`: one job's log as server-sent events; a reader that comes back goes on where it was."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from sigmagraph.engine.jobs.events import JobEvent
from sigmagraph.engine.server.context import JOBS, OWNER, compact

__all__ = ["job_events"]

KEEP_ALIVE_S = 15.0
LONGEST_NUMBER = 18  # digits


async def job_events(request: web.Request) -> web.StreamResponse:
    """Stored events after `Last-Event-ID` (or `?after=`), then live ones, to the last; a comment keeps it open."""
    jobs, job_id, owner = request.app[JOBS], request.match_info["id"], request[OWNER]
    await jobs.look(job_id, owner)  # another's job is a 404 before the stream begins
    after = request.headers.get("Last-Event-ID") or request.query.get("after", "0")
    if not after.isdecimal() or len(after) > LONGEST_NUMBER:
        raise web.HTTPBadRequest(text=f"Last-Event-ID {after[:40]!r} is not an event number")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        await _stream(response, jobs.follow(job_id, owner, after=int(after)))
        await response.write_eof()
    return response


async def _stream(response: web.StreamResponse, events: AsyncIterator[JobEvent]) -> None:
    """Write each event as it comes; a blank comment in quiet times, so that proxies keep the line open."""
    waiting: asyncio.Task[JobEvent | None] = asyncio.create_task(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=KEEP_ALIVE_S)
            if not done:
                await response.write(b":\n\n")
                continue
            event = waiting.result()
            if event is None:
                return
            await response.write(frame(event))
            waiting = asyncio.create_task(_next(events))
    finally:
        waiting.cancel()


async def _next(events: AsyncIterator[JobEvent]) -> JobEvent | None:
    return await anext(events, None)


def frame(event: JobEvent) -> bytes:
    """One event in the stream's form: its number as id, its kind as name, its fields as JSON."""
    kind = type(event.body).__name__
    data: dict[str, Any] = {"job_id": event.job_id, "at": event.at, "kind": kind, **_fields(event.body)}
    return f"id: {event.number}\nevent: {kind}\ndata: {compact(data)}\n\n".encode()


def _fields(body: Any) -> dict[str, Any]:
    return {field.name: getattr(body, field.name) for field in dataclasses.fields(body) if field.name != "preview"}
