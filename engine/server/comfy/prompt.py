"""`POST /prompt`: a graph from a client becomes a job; `GET /prompt`: how many there are."""

import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadDocument, BadValue, DuplicateJob, InvalidWorkflow
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.job import Accepted, Idempotency, Submission
from sigmagraph.engine.server.access.auth import require_any_graph
from sigmagraph.engine.server.comfy.hub import HUB
from sigmagraph.engine.server.comfy.refusals import node_errors, refusal, whole_error
from sigmagraph.engine.server.context import JOBS, OWNER, SETTINGS, reply
from sigmagraph.engine.server.request_fields import RequestFields, prompt_body, webhook_of
from sigmagraph.engine.server.transport.request_bodies import read_body

__all__ = ["count", "shown_number", "submit"]

SECRETS = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})
EXAMPLE = "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b"


class PromptRefused(Exception):
    """The body cannot be a prompt; carries the answer."""

    def __init__(self, kind: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.body = whole_error(kind, message, details)


async def count(request: web.Request) -> web.Response:
    """`GET /prompt`."""
    remaining = (await request.app[JOBS].counts(request[OWNER])).remaining
    return reply({"exec_info": {"queue_remaining": remaining}})


async def submit(request: web.Request) -> web.Response:
    """`POST /prompt`: 200 once the job is on disk, 400 with every reason otherwise."""
    require_any_graph(request)
    jobs, hub = request.app[JOBS], request.app[HUB]
    try:
        body = await prompt_body(request)
        submission = _submission(body, request, await read_body(request))
    except PromptRefused as refused:
        return reply(refused.body, 400)
    hub.expect(submission.job_id, str(submission.meta["client_id"] or "") or None)
    is_accepted = False
    try:
        accepted = await jobs.submit(submission)
        is_accepted = not accepted.is_repeat
    except InvalidWorkflow as invalid:
        problems = [problem for problem in invalid.problems if isinstance(problem, Problem)]
        return reply(refusal(problems, submission.workflow, await jobs.nodes()), 400)
    except DuplicateJob:
        return reply(whole_error("invalid_prompt_id", f"a job with the id {submission.job_id!r} exists already"), 400)
    finally:
        if not is_accepted:
            hub.forget(submission.job_id)
    errors = node_errors(accepted.problems, submission.workflow, await jobs.nodes()) if accepted.problems else {}
    return reply({"prompt_id": accepted.job.id, "number": shown_number(accepted), "node_errors": errors})


def shown_number(accepted: Accepted) -> float:
    """The number as a client sent it, or the counter's as a whole number."""
    number = accepted.job.number
    return int(number) if not accepted.job.meta.get("number_given") and number.is_integer() else number


def _submission(body: Any, request: web.Request, raw: bytes) -> Submission:
    if not isinstance(body, dict) or "prompt" not in body:
        raise PromptRefused("no_prompt", "No prompt provided", "No prompt provided")
    workflow = _workflow(body["prompt"], request.app[SETTINGS].max_nodes)
    extra = body.get("extra_data")
    extra_data = {name: value for name, value in _mapping(extra).items() if name not in SECRETS}
    client_id = body.get("client_id", extra_data.get("client_id"))
    if "client_id" in body:
        extra_data["client_id"] = client_id
    extra_data.setdefault("create_time", round(time.time() * 1000))
    number = _number(body.get("number"))
    drawing = _mapping(_mapping(extra_data.get("extra_pnginfo")).get("workflow"))
    meta = {"client_id": client_id, "number_given": number is not None, "workflow_id": drawing.get("id")}
    key = request.headers.get("Idempotency-Key")
    targets = body.get("partial_execution_targets")
    return Submission(
        workflow=Workflow(workflow.nodes, drawing or None),
        owner=request[OWNER],
        job_id=_job_id(body.get("prompt_id")),
        targets=[str(target) for target in targets] if isinstance(targets, list) else None,
        extra_data=extra_data,
        meta=meta,
        source="comfy",
        reuses_outputs=True,
        number=number,
        front=bool(body.get("front")),
        webhook=webhook_of(RequestFields(body)),
        idempotency=Idempotency.of(key, raw) if key else None,
    )


def _workflow(prompt: Any, max_nodes: int) -> Workflow:
    if prompt == []:  # what a page with an empty canvas may send
        prompt = {}
    if isinstance(prompt, Mapping) and len(prompt) > max_nodes:
        raise PromptRefused(
            "invalid_prompt", f"the prompt has {len(prompt)} nodes; this server takes at most {max_nodes}"
        )
    if isinstance(prompt, str):
        message = "the prompt is a string, and no stored workflow has that name; expected an object of nodes"
        raise PromptRefused("invalid_prompt", message, message)
    try:
        return parse_workflow({"prompt": prompt}) if prompt else Workflow({})
    except BadDocument as bad:
        raise PromptRefused("invalid_prompt", str(bad), str(bad)) from bad


def _job_id(value: Any) -> str:
    """The client's own id, or a new one. Ids are one namespace: as UUIDs, nobody guesses another key's next one."""
    if value is None:
        return str(uuid.uuid4())
    canonical = _canonical(value)
    if canonical is None or canonical != value:
        allowed = f"a lower-case UUID such as {canonical or EXAMPLE}, or null, for which the server makes one"
        raise PromptRefused("invalid_prompt_id", str(BadValue("prompt_id", value, allowed)))
    return canonical


def _canonical(value: Any) -> str | None:
    """A UUID in its one usual spelling, whichever it came in; None where it is not one."""
    try:
        return str(uuid.UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise PromptRefused("invalid_prompt", f"number must be a number, not {str(value)[:40]!r}")
    return number


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
