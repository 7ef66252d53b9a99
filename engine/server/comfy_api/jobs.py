"""`/api/v2/jobs`: submit, list, look, cancel."""

import asyncio
import base64
import json
import math
import uuid
from collections.abc import Mapping
from itertools import chain
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.overrides import override_values
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import Idempotency, Job, JobQuery, State, Submission, Webhook, is_name
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.access.auth import SCOPES, require_any_graph
from sigmagraph.engine.server.access.origin import own_origin
from sigmagraph.engine.server.comfy_api.assets import named
from sigmagraph.engine.server.comfy_api.job_json import STATUSES, instant, job_record, status_of
from sigmagraph.engine.server.comfy_api.progress import snapshot_of
from sigmagraph.engine.server.comfy_api.references import resolved
from sigmagraph.engine.server.comfy_api.refusals import Declined
from sigmagraph.engine.server.context import JOBS, OWNER, SETTINGS, OwnerFolders, folders, reply
from sigmagraph.engine.server.request_fields import declarations
from sigmagraph.engine.server.transport.request_bodies import json_body

__all__ = ["cancel", "fetch", "listing", "submit", "workflow"]

SOURCE = "comfy_api"
FIELDS = ("workflow", "inputs", "extra_data", "metadata", "priority", "webhook_url", "webhook_secret")
PARTNER_KEY = "api_key_comfy_org"
LONGEST_KEY = 255
MOST_METADATA = 4096  # bytes
MOST_PRIORITY = 1000
MOST, USUAL = 200, 50
ALSO: Mapping[State, tuple[str, ...]] = {State.RUNNING: ("canceling",)}
"""Further words that a job of a state may be told by."""


async def submit(request: web.Request) -> web.StreamResponse:
    """`POST /jobs`: 201 once the job is on disk. An `Idempotency-Key` is for one job; used again it is a 422."""
    require_any_graph(request)
    body = await json_body(request, None)
    if not isinstance(body, dict):
        raise Declined(400, "invalid_request", "the body is not a JSON object")
    unknown = sorted(set(body) - set(FIELDS))
    if unknown:
        raise Declined(400, "invalid_request", f"there is no field {unknown[0][:40]!r}; there are {', '.join(FIELDS)}")
    document = body.get("workflow")
    if not isinstance(document, dict):
        raise Declined(422, "invalid_workflow", "the field 'workflow' is missing, or is not an object")
    parsed = await _parsed(request, document, _mapping(body, "inputs"))
    priority = _priority(body.get("priority"))
    is_operator = "admin" in request[SCOPES]  # another key orders its own jobs, and goes before nobody else's
    meta = {"metadata": _metadata(body.get("metadata")), "priority": priority}
    drawing = {"extra_pnginfo": {"workflow": parsed.editor}} if parsed.editor is not None else {}
    _check_extra(body.get("extra_data"))
    submission = Submission(
        parsed,
        request[OWNER],
        job_id=str(uuid.uuid4()),
        extra_data=drawing,
        meta={name: value for name, value in meta.items() if value is not None},
        source=SOURCE,
        priority=(priority or 0) if is_operator else 0,
        own_priority=0 if is_operator else priority or 0,
        webhook=_webhook(body),
        idempotency=_key(request),
        reuses_outputs=True,
    )
    accepted = await request.app[JOBS].submit(submission)
    return reply(await _record(request, accepted.job), 201)


async def _parsed(request: web.Request, document: Mapping[str, Any], inputs: Mapping[str, Any]) -> Workflow:
    """The graph of either form, with its assets and inputs in place."""
    known, nodes = await declarations(request), await request.app[JOBS].nodes()
    plain = await resolved(document, named(request))
    parsed = await asyncio.to_thread(parse_workflow, plain, known)
    most = request.app[SETTINGS].max_nodes
    if len(parsed.nodes) > most:
        raise Declined(422, "invalid_workflow", f"{len(parsed.nodes)} nodes; this server takes at most {most}")
    return override_values(parsed, list(inputs.items()), nodes) if inputs else parsed


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Declined(422, "invalid_request", f"{name} is not an object of NODE.INPUT and value")
    return value


def _check_extra(extra: Any) -> None:
    """Only a partner's key may come, and it is not kept: there are no partner nodes here."""
    if extra is None:
        return
    if not isinstance(extra, dict) or set(extra) - {PARTNER_KEY}:
        raise Declined(400, "invalid_request", f"extra_data takes {PARTNER_KEY} alone")
    if not isinstance(extra.get(PARTNER_KEY, ""), str):
        raise Declined(400, "invalid_request", f"extra_data.{PARTNER_KEY} is not a string")


def _metadata(value: Any) -> str | dict[str, str] | None:
    """A label, or labels by name."""
    is_labels = isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
    if value is not None and not isinstance(value, str) and not is_labels:
        raise Declined(422, "invalid_request", "metadata is neither a string nor an object of strings")
    if len(json.dumps(value)) > MOST_METADATA:
        raise Declined(422, "invalid_request", f"metadata has more than {MOST_METADATA} bytes")
    found: str | dict[str, str] | None = value
    return found


def _priority(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not -MOST_PRIORITY <= value <= MOST_PRIORITY:
        raise Declined(422, "invalid_request", f"priority is not a whole number of -{MOST_PRIORITY} to {MOST_PRIORITY}")
    return value


def _webhook(body: Mapping[str, Any]) -> Webhook | None:
    url, secret = body.get("webhook_url"), body.get("webhook_secret") or ""
    if url is None:
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not isinstance(secret, str):
        raise Declined(422, "invalid_request", "webhook_url is not an http or https address")
    try:
        return Webhook(url, secret)
    except BadValue as error:
        raise Declined(422, "invalid_request", str(error)) from error


def _key(request: web.Request) -> Idempotency | None:
    """The key, tied to this request alone: by contract a second use never answers with the first one's job."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not key or len(key) > LONGEST_KEY or not key.isprintable():
        raise Declined(400, "invalid_request", f"Idempotency-Key is not 1 to {LONGEST_KEY} printable characters")
    return Idempotency.of(key, uuid.uuid4().bytes)


async def listing(request: web.Request) -> web.StreamResponse:
    """`GET /jobs?status=&metadata[name]=&limit=&cursor=`: newest first, a page at a time."""
    limit, after = _number(request, "limit", USUAL, 1, MOST), _cursor(request.query.get("cursor"))
    words, wanted = _words(request), _labels(request)
    states = frozenset(state for state in State if words & {STATUSES[state], *ALSO.get(state, ())}) if words else None
    found, is_more = list[Job](), True
    while is_more and len(found) <= limit:
        query = JobQuery(request[OWNER], states, limit=MOST if wanted else limit + 1, older_than=after)
        page = (await request.app[JOBS].find(query)).jobs
        found += (job for job in page if _has(job, wanted) and (not words or status_of(job) in words))
        is_more = len(page) == query.limit
        after = (page[-1].created_at, page[-1].id) if page else after
    rest = (
        {"truncated": True, "next_cursor": _written(found[limit - 1])} if len(found) > limit else {"truncated": False}
    )
    base, places = own_origin(request), folders(request)
    lines = await asyncio.to_thread(lambda: [_line(job, base, places) for job in found[:limit]])
    return reply({"jobs": lines, **rest})


def _cursor(text: str | None) -> tuple[float, str] | None:
    """The last job of the page before, as `_written` writes it: jobs that came or went since move no page."""
    if text is None or text in ("", "0"):  # a first page
        return None
    try:
        at, job_id = json.loads(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
    except (ValueError, TypeError, RecursionError):  # no base64, no JSON, no pair
        at = job_id = None
    if not isinstance(at, float) or not math.isfinite(at) or not isinstance(job_id, str) or not is_name(job_id):
        raise Declined(400, "invalid_request", f"cursor {text[:40]!r} is not the next_cursor of a list")
    return at, job_id


def _written(job: Job) -> str:
    place = json.dumps([float(job.created_at), job.id]).encode()
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _has(job: Job, wanted: Mapping[str, str]) -> bool:
    labels = job.meta.get("metadata")
    return not wanted or (isinstance(labels, dict) and wanted.items() <= labels.items())


def _line(job: Job, base: str, places: OwnerFolders) -> dict[str, Any]:
    """A job in a list: as by itself, with the two times that lists carry."""
    changed = max(at for at in (job.created_at, job.started_at, job.ended_at) if at is not None)
    record = job_record(job, base, places)
    return record | {"create_time": instant(job.created_at), "update_time": instant(changed)}


async def fetch(request: web.Request) -> web.StreamResponse:
    """`GET /jobs/{id}`."""
    return reply(await _record(request, await _job(request)))


async def workflow(request: web.Request) -> web.StreamResponse:
    """`GET /jobs/{id}/workflow`: the drawing where the job came with one (`save`), else the graph (`api`)."""
    job = await _job(request)
    if job.request is None:
        raise Declined(404, "not_found", f"the workflow of job {job.id} is no longer kept")
    drawing = (job.request.extra_data.get("extra_pnginfo") or {}).get("workflow")
    if drawing and request.query.get("format") != "api":
        return reply({"workflow": drawing, "format": "save"})
    return reply({"workflow": job.request.prompt, "format": "api"})


async def cancel(request: web.Request) -> web.StreamResponse:
    """`POST /jobs/{id}/cancel`: an ended job is left as it is."""
    job = await request.app[JOBS].cancel(request.match_info["id"], request[OWNER])
    return reply(await _record(request, await request.app[JOBS].get(job.id, request[OWNER])))


async def _job(request: web.Request) -> Job:
    return await request.app[JOBS].get(request.match_info["id"], request[OWNER])


async def _record(request: web.Request, job: Job) -> dict[str, Any]:
    jobs, places, base = request.app[JOBS], folders(request), own_origin(request)
    snapshot = await snapshot_of(jobs, job) if job.state is State.RUNNING else None
    position = await _position(jobs, job) if job.state is State.QUEUED else None
    return await asyncio.to_thread(job_record, job, base, places, snapshot, position)


async def _position(jobs: Jobs, job: Job) -> int:
    """Its place among the owner's waiting jobs, from 1."""
    sooner = JobQuery(job.owner, frozenset({State.QUEUED}), limit=0, sooner_than=(job.priority, job.number))
    return 1 + (await jobs.find(sooner)).total


def _number(request: web.Request, name: str, usual: int, low: int, high: int) -> int:
    text = request.query.get(name, str(usual))
    if not text.isdecimal() or len(text) > 10 or not low <= int(text) <= high:
        raise Declined(400, "invalid_request", f"{name} {text[:40]!r} is not a whole number from {low} to {high}")
    return int(text)


def _words(request: web.Request) -> frozenset[str]:
    """The states that are asked for; none for all of them."""
    text = request.query.get("status", "")
    wanted = frozenset(part.strip() for part in text.split(",")) if text else frozenset[str]()
    known = {*STATUSES.values(), *chain.from_iterable(ALSO.values())}
    if not wanted <= known:
        unknown, listed = sorted(wanted - known)[0][:40], ", ".join(sorted(known))
        raise Declined(400, "invalid_request", f"status {unknown!r}: not one of {listed}")
    return wanted


def _labels(request: web.Request) -> dict[str, str]:
    """The query's `metadata[name]=value`."""
    pairs = ((name.removeprefix("metadata[")[:-1], value) for name, value in request.query.items() if _is_label(name))
    return dict(pairs)


def _is_label(name: str) -> bool:
    return name.startswith("metadata[") and name.endswith("]")
