"""Failures in this protocol's envelope: `{"error": {"code", "message", "details"}}`."""

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine import errors
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.server.access.auth import RateReached
from sigmagraph.engine.server.context import reply
from sigmagraph.engine.server.files import Outside
from sigmagraph.engine.server.quota import DiskFull, QuotaReached

__all__ = ["Declined", "answered", "envelopes"]

PREFIX = "/api/v2/"
OURS = ("health", "jobs", "assets")
"""The first words of this protocol's paths; `/api/v2/userdata` is the editor's."""
RETRY_S = "5"
CODES: tuple[tuple[type[errors.EngineError], int, str], ...] = (  # the first that fits
    (errors.UnknownJob, 404, "not_found"),
    (errors.MissingFile, 404, "not_found"),
    (errors.IdempotencyConflict, 422, "idempotency_key_reuse"),
    (errors.InsufficientCredits, 402, "insufficient_credits"),
    (errors.QueueShareUsed, 429, "queue_full"),
    (RateReached, 429, "rate_limited"),
    (errors.NotAccepting, 503, "not_accepting"),
    (errors.WorkflowProblem, 422, "invalid_workflow"),
    (errors.BadDocument, 422, "invalid_workflow"),
    (errors.UnknownName, 422, "invalid_workflow"),
    (errors.BadValue, 422, "invalid_request"),
    (Outside, 422, "invalid_request"),
    (QuotaReached, 413, "payload_too_large"),
    (DiskFull, 507, "insufficient_storage"),
    (errors.WriteFailed, 507, "insufficient_storage"),
)
BY_STATUS: Mapping[int, str] = {
    400: "invalid_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    413: "payload_too_large", 415: "invalid_request", 429: "rate_limited", 503: "not_accepting",
}  # fmt: skip


class Declined(errors.EngineError):
    """A refusal of this protocol, with its status and code."""

    def __init__(self, status: int, code: str, message: str, /, **details: Any) -> None:
        self.status, self.code, self.details = status, code, details
        super().__init__(message)


def answered(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
    """The handler, with what it raises put into the envelope."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Declined as refused:
            return _envelope(refused.status, refused.code, str(refused), refused.details)
        except errors.EngineError as error:
            found = next(((status, code) for kind, status, code in CODES if isinstance(error, kind)), None)
            if found is None:
                raise
            response = _envelope(*found, str(error), _details(error))
            if found[0] in (429, 503):
                response.headers["Retry-After"] = str(error.wait_s) if isinstance(error, RateReached) else RETRY_S
            return response

    return answer


@web.middleware
async def envelopes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals that come from elsewhere (no key, no such path, a body too large), in the envelope as well."""
    if not _is_ours(request.path):
        return await handler(request)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        return _enveloped(error.status, error.text or error.reason, error.headers)
    if response.status < 400 or not isinstance(response, web.Response):
        return response
    kind, message = _told(response)
    return response if kind is None else _enveloped(response.status, message, response.headers)


def _is_ours(path: str) -> bool:
    return path.startswith(PREFIX) and path.removeprefix(PREFIX).partition("/")[0] in OURS


def _told(response: web.Response) -> tuple[str | None, str]:
    """What another layer says went wrong; None where the answer has this protocol's form already."""
    text = response.text or ""
    if response.content_type != "application/json":
        return "text", text
    error = json.loads(text).get("error") if text else None
    is_envelope = isinstance(error, dict) and "code" in error
    return (None, "") if is_envelope else ("json", error.get("message", "") if isinstance(error, dict) else text)


def _enveloped(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    code = BY_STATUS.get(status, "internal_error" if status >= 500 else "invalid_request")
    response = _envelope(status, code, message, {})
    for name in ("Allow", "Retry-After", "WWW-Authenticate"):
        if name in headers:
            response.headers[name] = headers[name]
    return response


def _envelope(status: int, code: str, message: str, details: Mapping[str, Any]) -> web.Response:
    error = {"code": code, "message": message} | ({"details": dict(details)} if details else {})
    return reply({"error": error}, status)


def _details(error: errors.EngineError) -> dict[str, Any]:
    """Per node: the input, and what is wrong with it."""
    if not isinstance(error, errors.InvalidWorkflow):
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for problem in error.problems:
        if isinstance(problem, Problem) and problem.node_id is not None:
            line = {"field": problem.input, "reason": problem.code, "message": str(problem)}
            found.setdefault(problem.node_id, []).append(line)
    return {"node_errors": found} if found else {}
