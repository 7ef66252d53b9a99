"""Every failure as this protocol's answer: `{"error": "...", "code": ...}`, always JSON, with its status."""

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from sigmagraph.engine import errors
from sigmagraph.engine.server.context import reply
from sigmagraph.engine.server.decoding.pool import Overloaded
from sigmagraph.engine.server.endpoints.outputs import Gone
from sigmagraph.engine.server.endpoints.translation import MissingWeights
from sigmagraph.engine.server.endpoints.values import InvalidValues
from sigmagraph.engine.units import CREDIT

__all__ = ["Refused", "answer"]

LOG = logging.getLogger("sigmagraph.http")
RETRY_S = "5"
TABLE: tuple[tuple[type[errors.EngineError], int], ...] = (  # the first that fits
    (errors.UnknownKey, 401),
    (errors.AccountProblem, 406),
    (errors.UnknownJob, 404),
    (errors.IdempotencyConflict, 409),
    (errors.QueueShareUsed, 429),
    (errors.NotAccepting, 502),
    (errors.WorkerLost, 502),
    (errors.StoreFailed, 502),
    (Overloaded, 502),
    (errors.IllegalMove, 409),
    (Gone, 410),
    (MissingWeights, 502),
    (InvalidValues, 400),
    (errors.BadDocument, 400),
)
WORDS: Mapping[int, tuple[str, str]] = {
    404: ("not_found", "The requested URL does not exist"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("too_large", "The request body is too large"),
}


class Refused(errors.EngineError):
    """A refusal with its status, code, headers and further facts."""

    def __init__(
        self, http_status: int, code: str, message: str, /, *, headers: Mapping[str, str] | None = None, **facts: Any
    ) -> None:
        self.status, self.code, self.headers, self.facts = http_status, code, headers or {}, facts
        super().__init__(message)

    def response(self) -> web.Response:
        """The answer."""
        response = reply({"error": "; ".join(str(self).splitlines()), "code": self.code, **self.facts}, self.status)
        response.headers.update(self.headers)
        return response


def answer(error: Exception, request: web.Request) -> web.Response:
    """The answer to whatever a handler raised; what nobody foresaw is logged and answered without details."""
    if isinstance(error, Refused):
        return error.response()
    if isinstance(error, InvalidValues):
        faults = [fault.wire() for fault in error.faults]
        return Refused(400, error.code, str(error), errors=faults).response()
    if isinstance(error, errors.EngineError):
        return _known(error, request)
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    if isinstance(error, RequestPayloadError):  # compressed or cut into chunks, it said, and was not
        return Refused(400, "malformed_body", f"The body cannot be read: {error}").response()
    LOG.error("request failed", exc_info=error, extra={"path": request.path, "method": request.method})
    return Refused(500, "internal_error", "Internal server error").response()


def _known(error: errors.EngineError, request: web.Request) -> web.Response:
    status = next((status for kind, status in TABLE if isinstance(error, kind)), 500)
    if status >= 500:
        LOG.error("request failed", extra={"path": request.path, "error": str(error), "code": error.code})
    is_short = status in (429, 502) and not isinstance(error, MissingWeights)
    headers = {"Retry-After": RETRY_S} if is_short else {}
    facts: dict[str, Any] = {}
    if isinstance(error, MissingWeights):
        facts = {"missing": error.missing}
    if isinstance(error, errors.InsufficientCredits):
        facts = {"available": error.available / CREDIT, "cost": error.cost / CREDIT}
    if isinstance(error, errors.SpendLimitReached):
        facts = {"spent": error.spent / CREDIT, "limit": error.limit / CREDIT, "cost": error.cost / CREDIT}
    return Refused(status, error.code, str(error), headers=headers, **facts).response()


def _of_http(error: web.HTTPException) -> web.Response:
    code, message = WORDS.get(error.status, ("http_error", error.text or error.reason))
    headers = {name: error.headers[name] for name in ("Allow", "Location") if name in error.headers}
    return Refused(error.status, code, message, headers=headers).response()
