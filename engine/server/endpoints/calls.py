"""The three ways to ask for pictures: `/v1` waits for them, `/v2` and `/workflows` say where to come back."""

import json
import uuid
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.jobs.job import LOCAL, Job, State, Submission
from sigmagraph.engine.server.context import FOLDERS, JOBS, reply
from sigmagraph.engine.server.endpoints import job_json
from sigmagraph.engine.server.endpoints.context import CALLER, PUBLISHED, SOURCE, base_url
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.server.endpoints.guard import endpoint_of, take_token
from sigmagraph.engine.server.endpoints.refusal import Refused
from sigmagraph.engine.server.endpoints.replies import finished, look_again
from sigmagraph.engine.server.endpoints.request_headers import read_headers
from sigmagraph.engine.server.endpoints.translation import translated
from sigmagraph.engine.server.endpoints.values import InvalidValues, Values, read_values
from sigmagraph.engine.server.transport.request_bodies import CALL, read_body

__all__ = ["call", "flow", "submit"]

NO_CALL = frozenset({InvalidValues.code, "invalid_content_type"})
ELSEWHERE = "save a workflow under another name, or by POST /api/workflows/"


async def call(request: web.Request) -> web.StreamResponse:
    """`POST /v1/{slug}`: one blocking call; past the deadline the job goes on and the body says where to find it."""
    endpoint = endpoint_of(request)
    job = await _accept(request, endpoint)
    job = await request.app[JOBS].wait(job.id, job.owner, endpoint.manifest.deadline_s)
    if job.state is State.SUCCEEDED:
        return await finished(request, job)
    if not job.state.is_end:
        limit = endpoint.manifest.deadline_s
        message = f"The request takes longer than {limit:g} s; it goes on, fetch it by its request_id"
        raise Refused(
            504, "deadline", message, headers={"x-request-id": job.id}, **job_json.accepted(job, base_url(request))
        )
    failure = job_json.error_of(job)
    status = {State.EXPIRED: 504, State.CANCELLED: 422}.get(job.state, 500)
    raise Refused(status, failure.code, failure.message, headers={"x-request-id": job.id}, request_id=job.id)


async def submit(request: web.Request) -> web.Response:
    """`POST /v2/{slug}`: accept one request; answer with where to watch it."""
    job = await _accept(request, endpoint_of(request))
    await look_again(request)
    return reply(job_json.accepted(job, base_url(request)))


async def flow(request: web.Request) -> web.Response:
    """`POST /workflows/{slug}`: accept one request, in the words of workflow clients."""
    endpoint = endpoint_of(request)
    try:
        job = await _accept(request, endpoint)
    except (InvalidValues, Refused) as refused:
        if refused.code in NO_CALL and await _is_document(request):
            message = f"{endpoint.slug} is a published workflow, so a POST here calls it; {ELSEWHERE}{endpoint.slug}"
            raise Refused(409, "name_is_published", message) from None
        raise
    await look_again(request)
    body = {"request_id": job.id, "poll_url": f"{base_url(request)}/workflows/request/{job.id}"}
    return reply(body | {"status": job_json.STATUSES[job.state]})


async def _is_document(request: web.Request) -> bool:
    """Whether a body that is not a call is a workflow to be saved: JSON with a document in it, or a picture."""
    if request.content_type.startswith(("multipart/", "image/")):
        return True
    try:
        body = json.loads(await read_body(request, CALL))
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and isinstance(body.get("workflow"), dict)


async def _accept(request: web.Request, endpoint: Endpoint) -> Job:
    """The request as a committed job; everything that can be refused is refused before."""
    _require_json(request)
    take_token(request)
    raw = await read_body(request, CALL)
    jobs, owner = request.app[JOBS], request[CALLER].owner
    allowed = endpoint.allowed(await jobs.nodes(), request.app[FOLDERS](owner))
    headers = read_headers(request, endpoint.slug, raw)
    values = read_values(endpoint, _parsed(raw), allowed, headers.faults)
    request_id = str(uuid.uuid4())
    submission = Submission(
        workflow=endpoint.bind(values.all, request_id),
        owner=owner,
        job_id=request_id,
        targets=[endpoint.reply_node],
        meta=_meta(endpoint, values) | {"base": base_url(request)},
        source=SOURCE,
        cost=0 if owner == LOCAL else values.cost(),
        expires_s=endpoint.manifest.expires_s,
        keep_s=max(request.app[PUBLISHED].file_s, request.app[PUBLISHED].record_s),
        idempotency=headers.idempotency,
        webhook=headers.webhook,
        shows=endpoint.reply_node,
    )
    try:
        return (await jobs.submit(submission)).job
    except InvalidWorkflow as invalid:
        raise translated(endpoint, invalid) from invalid


def _meta(endpoint: Endpoint, values: Values) -> dict[str, Any]:
    """All a later reply needs: it is made from this, also when the manifest has changed since."""
    reply_form = endpoint.manifest.reply
    base64_name = endpoint.manifest.role("base64")
    return {
        "endpoint": endpoint.slug,
        "reply_node": endpoint.reply_node,
        "default": reply_form.default,
        "format": values.role("format") or reply_form.format,
        "quality": values.whole("quality", reply_form.quality),
        "base64": bool(values.role("base64")),
        "base64_given": base64_name in values.given,
        "seed": values.role("seed"),
        "facts": values.facts(),
        "ignored": list(values.ignored),
    }


def _require_json(request: web.Request) -> None:
    kind = request.content_type if "Content-Type" in request.headers else ""
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refused(406, "invalid_content_type", "Invalid content type: send application/json", received=kind)


def _parsed(raw: bytes) -> Any:
    """The body as strict JSON."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        message = f"The body is not JSON: {error}"
        raise Refused(400, "malformed_json", message) from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
