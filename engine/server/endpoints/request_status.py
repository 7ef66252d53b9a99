"""What became of a request: status, result, cancel, events, its pictures, and the caller's credits."""

import hmac

from aiohttp import web

from sigmagraph.engine.errors import UnknownJob
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.server.context import FOLDERS, JOBS, OWNER, reply
from sigmagraph.engine.server.decoding.pool import DECODERS
from sigmagraph.engine.server.endpoints import job_json, outputs
from sigmagraph.engine.server.endpoints.context import CALLER, PUBLISHED, SOURCE, base_url
from sigmagraph.engine.server.endpoints.guard import identified
from sigmagraph.engine.server.endpoints.refusal import Refused
from sigmagraph.engine.server.endpoints.replies import output_of, standing_of
from sigmagraph.engine.server.sse import job_events
from sigmagraph.engine.units import CREDIT

__all__ = ["cancel", "credit", "events", "flow_state", "picture", "result", "status"]

OVER = "This output is no longer kept, or its URL has expired"


async def status(request: web.Request) -> web.Response:
    """`GET /v2/requests/{id}/status`: where it stands; 422 where it failed."""
    return await _state(request, await _request(request))


async def result(request: web.Request) -> web.Response:
    """`GET /v2/requests/{id}` and `/v1/requests/{id}`: where it stands, and the output once it is there."""
    job = await _request(request)
    return await _state(request, job, has_output=job.state is State.SUCCEEDED)


async def cancel(request: web.Request) -> web.Response:
    """Stop it: a waiting request ends now, a running one at its next step; one that has ended stays as it is."""
    job = await _request(request)
    job = await request.app[JOBS].cancel(job.id, job.owner)
    body = {"request_id": job.id, "status": job_json.STATUSES[job.state], "cancel_requested": not job.state.is_end}
    return reply(body)


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /v2/requests/{id}/events`: its log as server-sent events; `Last-Event-ID` goes on where a reader was."""
    await _request(request)
    return await job_events(request)


async def flow_state(request: web.Request) -> web.Response:
    """`GET /workflows/request/{id}`: for workflow clients, whose failures are a 200 that says FAILED."""
    job = await _request(request)
    body = {"request_id": job.id, "status": job_json.STATUSES[job.state]}
    if job.state is State.SUCCEEDED:
        body["output"] = await output_of(request, job)
    elif body["status"] == "FAILED":
        failure = job_json.error_of(job)
        body |= {"error": failure.message, "error_message": failure.message, "code": failure.code}
    return reply(body)


async def credit(request: web.Request) -> web.Response:
    """`GET /v1/get-user-credits`: the balance that can be spent."""
    standing = await standing_of(request)
    left = job_json.remaining(standing)
    if standing is None or left is None:
        raise Refused(404, "no_credits", "No credits found for the user")
    return reply({"credits": left, "held": standing.held / CREDIT, "account": standing.name})


async def picture(request: web.Request) -> web.Response:
    """`GET /outputs/{id}/{name}`: one picture, for whoever holds its signed URL, until the URL's end."""
    published, job_id, name = request.app[PUBLISHED], request.match_info["id"], request.match_info["name"]
    missing = Refused(404, "unknown_output", "There is no such output")
    expires, proof = request.query.get("expires", ""), request.query.get("signature", "")
    if not expires.isdecimal() or len(expires) > 12 or not proof.isascii():
        raise missing
    if not hmac.compare_digest(proof, outputs.signature(published.secret, job_id, name, int(expires))):
        raise missing
    try:
        job = await request.app[JOBS].look(job_id)
    except UnknownJob:
        raise outputs.Gone(OVER) from None
    if not await _belongs(request, job):
        raise missing
    if int(expires) < published.clock():
        raise outputs.Gone(OVER)
    kind, quality = outputs.kind_of(job.meta)
    path = outputs.files_of(job, request.app[FOLDERS](job.owner))[int(name.partition(".")[0])]
    body = await outputs.encoded(request.app[DECODERS], job.owner, path, kind, quality)
    headers = {"Cache-Control": f"private, max-age={max(0, int(expires) - int(published.clock()))}"}
    return web.Response(
        body=body, content_type=f"image/{kind}", headers=headers | {"X-Content-Type-Options": "nosniff"}
    )


async def _belongs(request: web.Request, job: Job) -> bool:
    """A URL dies with its key, and is nothing to a caller who shows another one."""
    keys = request.app[PUBLISHED].keys
    if not await keys.required():
        return True
    key = request.headers.get("x-api-key")
    if key:
        shown = await identified(request, key)
        return shown is not None and shown.id == job.owner
    return await keys.standing(job.owner) is not None


async def _state(request: web.Request, job: Job, *, has_output: bool = False) -> web.Response:
    published = request.app[PUBLISHED]
    body = job_json.state_body(job, request[CALLER].standing, published.clock(), base_url(request))
    if has_output:
        body |= {"output": await output_of(request, job), "seed": job.meta.get("seed"), "metadata": job.meta["facts"]}
    return reply(body, 422 if body["status"] == "FAILED" else 200)


async def _request(request: web.Request) -> Job:
    """The request of the path: 404 if it is another's, another protocol's, or was kept long enough."""
    published, job_id = request.app[PUBLISHED], request.match_info["id"]
    unknown = Refused(404, "unknown_request", f"There is no request {job_id[:100]!r}, or it has expired")
    try:
        job = await request.app[JOBS].look(job_id, request[OWNER])
    except UnknownJob:
        raise unknown from None
    is_over = job.ended_at is not None and job.ended_at + published.record_s < published.clock()
    if job.source != SOURCE or is_over:
        raise unknown
    return job
