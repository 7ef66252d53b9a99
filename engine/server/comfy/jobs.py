"""`/jobs`: lists, details and cancelling, as the newer page wants them."""

from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import EngineError, UnknownJob
from sigmagraph.engine.jobs.job import FIELDS, LONGEST_NAME, Job, JobQuery, State
from sigmagraph.engine.server.comfy.finding import found
from sigmagraph.engine.server.comfy.job_json import STATUSES, detail, summary
from sigmagraph.engine.server.comfy.queue import MOST, cancel
from sigmagraph.engine.server.comfy.streamed_lists import failure_of
from sigmagraph.engine.server.context import JOBS, OWNER, reply
from sigmagraph.engine.server.transport.request_bodies import object_body

__all__ = ["cancel_many", "cancel_one", "listing", "one"]


LONGEST_NUMBER, LONGEST_MOMENT = 9, 15  # digits


class BadQuery(EngineError, ValueError):
    """A query parameter with a value that is not allowed."""

    code = "bad_query"


async def listing(request: web.Request) -> web.Response:
    """`GET /jobs`: newest first, one page."""
    try:
        return await _listed(request)
    except BadQuery as bad:
        return reply({"error": str(bad)}, 400)


async def _listed(request: web.Request) -> web.Response:
    """One page. `text` finds jobs by what their request says; `sampler`, `schedule`, `model` and `seed` by inputs.

    `created_after` and `created_before` are milliseconds since 1970, as `create_time` is. The page asks under `/api`
    and shows no job that was deleted while it waited; without it all are listed.
    """
    limit, offset = _natural(request, "limit", MOST), _natural(request, "offset", 0)
    newest_first = _choice(request, "sort_order", ("desc", "asc")) == "desc"
    by_duration = _choice(request, "sort_by", ("created_at", "execution_duration")) == "execution_duration"
    workflow_id = request.query.get("workflow_id")
    is_paged_here = by_duration or workflow_id is not None
    query = JobQuery(
        request[OWNER],
        _states(request),
        newest_first=newest_first,
        limit=MOST if is_paged_here else limit,
        offset=0 if is_paged_here else offset,
        with_withdrawn=not request.path.startswith("/api/"),
        text=_short("text", request.query.get("text", "")),
        fields=_fields(request),
        since=_moment(request, "created_after"),
        until=_moment(request, "created_before"),
    )
    page = await found(request, query) if limit else None
    jobs, total = (list(page.jobs), page.total) if page is not None else ([], 0)
    if is_paged_here:
        jobs = [job for job in jobs if workflow_id in (None, job.meta.get("workflow_id"))]
        total = len(jobs)
        jobs = sorted(jobs, key=_duration, reverse=newest_first) if by_duration else jobs
        jobs = jobs[offset : offset + limit]
    pagination = {"offset": offset, "limit": limit, "total": total, "has_more": offset + len(jobs) < total}
    return reply({"jobs": [summary(job) for job in jobs], "pagination": pagination})


async def one(request: web.Request) -> web.Response:
    """`GET /jobs/{id}`."""
    jobs = request.app[JOBS]
    try:
        job = await jobs.get(request.match_info["id"], request[OWNER])
    except UnknownJob:
        return reply({"error": f"there is no job {request.match_info['id']!r}"}, 404)
    return reply(detail(job, await failure_of(jobs, job)))


async def cancel_one(request: web.Request) -> web.Response:
    """`POST /jobs/{id}/cancel`: a job that is over, or not there, is left as it is."""
    await cancel(request.app[JOBS], request.match_info["id"], request[OWNER], State.QUEUED, State.RUNNING)
    return reply({"cancelled": True})


async def cancel_many(request: web.Request) -> web.Response:
    """`POST /jobs/cancel`."""
    ids: Any = (await object_body(request)).get("job_ids")
    if not isinstance(ids, list):
        return reply({"error": "job_ids must be a list"}, 400)
    for job_id in ids:
        await cancel(request.app[JOBS], str(job_id), request[OWNER], State.QUEUED, State.RUNNING)
    return reply({"cancelled": True})


def _states(request: web.Request) -> frozenset[State] | None:
    text = request.query.get("status")
    if not text:
        return None
    wanted = {part.strip() for part in text.split(",")}
    unknown = wanted - set(STATUSES.values())
    if unknown:
        raise BadQuery(f"status {sorted(unknown)[0]!r} is not one of {', '.join(dict.fromkeys(STATUSES.values()))}")
    return frozenset(state for state, name in STATUSES.items() if name in wanted)


def _natural(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > LONGEST_NUMBER:
        raise BadQuery(f"{name} {text[:40]!r} is not a whole number from 0 on that a list can have")
    return min(int(text), MOST) if name == "limit" else int(text)


def _fields(request: web.Request) -> dict[str, str]:
    given = {name: request.query[name] for name in FIELDS if request.query.get(name)}
    return {name: _short(name, value) for name, value in given.items()}


def _short(name: str, value: str) -> str:
    if len(value) > LONGEST_NAME:
        raise BadQuery(f"{name} {value[:40]!r}... is longer than {LONGEST_NAME} characters")
    return value


def _moment(request: web.Request, name: str) -> float | None:
    """Milliseconds since 1970 as seconds."""
    text = request.query.get(name)
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > LONGEST_MOMENT:
        raise BadQuery(f"{name} {text[:40]!r} is not a whole number of milliseconds since 1970")
    return int(text) / 1000


def _choice(request: web.Request, name: str, allowed: tuple[str, ...]) -> str:
    text = request.query.get(name, allowed[0])
    if text not in allowed:
        raise BadQuery(f"{name} {text!r} is not one of {', '.join(allowed)}")
    return text


def _duration(job: Job) -> int:
    """As the two times on the wire say it, so that the order and what it is by agree."""
    line = summary(job)
    return (line["execution_end_time"] or 0) - (line["execution_start_time"] or 0) if job.run_s is not None else 0
