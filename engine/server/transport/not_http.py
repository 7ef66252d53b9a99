"""What is no HTTP request: refused in a few words, which repeat nothing of what came.

aiohttp quotes the line that it cannot read, in its answer and in the log, with a traceback. The line may be the header
with a key in it.
"""

import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.web_protocol import RequestHandler

__all__ = ["discreet"]

LOG = logging.getLogger("sigmagraph.http")
TLS = "Received HTTPS traffic on an HTTP port"
REASONS: tuple[tuple[type[HttpProcessingError], str], ...] = (  # the first that fits
    (LineTooLong, "the address or a header is too long"),
    (InvalidURLError, "the address cannot be read"),
    (BadHttpMethod, "the first line is not that of an HTTP request"),
    (HttpProcessingError, "a header, or the size that the body says it has, cannot be read"),
)


class DiscreetHandler(RequestHandler):
    """aiohttp's connection, whose refusal is ours."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A 400 and one line in the log for what cannot be read; all else is aiohttp's."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        reason = f"not an HTTP request that is read here: {reason_of(exc)}"
        LOG.warning("refused what came", extra={"reason": reason, "client": request.remote})
        response = web.Response(status=status, text=reason)
        response.force_close()
        return response


def reason_of(error: HttpProcessingError) -> str:
    """What is wrong, in words that are the same whatever came."""
    if TLS in error.message:
        return "it is HTTPS, and this port speaks HTTP"
    return next(reason for kind, reason in REASONS if isinstance(error, kind))


def discreet(make: Callable[[], RequestHandler]) -> RequestHandler:
    """A connection that aiohttp's server makes, with the refusal above: the server has no setting for its class."""
    handler = make()
    handler.__class__ = DiscreetHandler
    return handler
