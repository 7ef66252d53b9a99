"""Every exception as an answer: statuses for our errors, one JSON shape, and no traceback to the outside."""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestPayloadError

from sigmagraph.engine import errors
from sigmagraph.engine.server.access.auth import RateReached
from sigmagraph.engine.server.access.wrong_keys import TooManyWrongKeys
from sigmagraph.engine.server.context import reply
from sigmagraph.engine.server.decoding.pool import Overloaded
from sigmagraph.engine.server.files import Outside
from sigmagraph.engine.server.quota import DiskFull, QuotaReached

__all__ = ["answer_errors", "note_begin", "status_of"]

LOG = logging.getLogger("sigmagraph.http")
RETRY_S = "5"
BEGUN: web.RequestKey[bool] = web.RequestKey("begun", bool)
LEFT = 499
"""As nginx has it: whoever asked has gone."""
STATUSES: tuple[tuple[type[errors.EngineError], int], ...] = (  # the first that fits
    (errors.UnknownName, 404),
    (errors.UnknownJob, 404),
    (errors.UnknownKey, 401),
    (errors.AccountProblem, 402),
    (TooManyWrongKeys, 429),
    (RateReached, 429),
    (errors.QueueShareUsed, 429),
    (errors.NotAccepting, 503),
    (errors.WorkerLost, 503),
    (errors.StoreFailed, 503),
    (errors.JobProblem, 409),
    (errors.MissingFile, 404),
    (errors.WriteFailed, 507),
    (QuotaReached, 413),
    (DiskFull, 507),
    (errors.BadValue, 400),
    (errors.FileProblem, 400),
    (errors.WorkflowProblem, 400),
    (errors.OutOfMemory, 503),
    (Outside, 403),
    (Overloaded, 503),
)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer; a body that says it is too large is not waited for."""
    if (request.content_length or 0) > request.client_max_size:
        message = f"the body has {request.content_length} bytes; this server takes at most {request.client_max_size}"
        return reply({"error": {"type": "too_large", "message": message}}, 413)
    try:
        return await _to_the_end(request, handler)
    except errors.EngineError as error:
        status = status_of(error)
        if status >= 500 and not isinstance(error, Overloaded | DiskFull):  # a flood of them must not flood the log
            LOG.error("request failed", extra={"path": request.path, "error": str(error), "code": error.code})
        response = reply({"error": {"type": error.code, "message": str(error)}}, status)
        if isinstance(error, errors.NotAccepting | errors.WorkerLost | errors.StoreFailed | Overloaded):
            response.headers["Retry-After"] = RETRY_S
        if isinstance(error, TooManyWrongKeys | RateReached):
            response.headers["Retry-After"] = str(error.wait_s)
        return response
    except web.HTTPException:
        raise
    except RequestPayloadError as error:  # compressed or cut into chunks, it said, and was not
        message = f"the body cannot be read: {error}"
        return reply({"error": {"type": "bad_body", "message": message}}, 400)
    except ConnectionResetError:
        if request.transport is not None and not request.transport.is_closing():
            raise
        LOG.info("a client left before its answer", extra={"path": request.path, "method": request.method})
        return web.Response(status=LEFT, reason="Client Closed Request")  # nobody reads it; the metrics count it
    except TimeoutError:
        raise
    except Exception:  # the last resort of a server: logged with its traceback, answered without
        LOG.exception("request failed", extra={"path": request.path, "method": request.method})
        return reply({"error": {"type": "internal_error", "message": "the server failed; its log says why"}}, 500)


async def _to_the_end(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer; one that fails after it began is cut off: nothing that is sent now would be read as an answer.

    Else its reader waits for the rest for ever, or takes a second answer for it.
    """
    try:
        return await handler(request)
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        if BEGUN not in request or request.transport is None:
            raise
        LOG.exception("an answer broke off", extra={"path": request.path, "method": request.method})
        request.transport.abort()
        return web.Response(status=500)  # nobody reads it; the metrics count it


async def note_begin(request: web.Request, response: web.StreamResponse) -> None:
    """Called before an answer begins."""
    request[BEGUN] = True


def status_of(error: errors.EngineError) -> int:
    """The HTTP status of one of our errors."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
