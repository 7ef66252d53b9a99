"""Bodies of requests: the one place that reads them, each with a limit that holds while it comes and while it unpacks.

aiohttp is told not to unpack anything (`HANDLER`): what it unpacks, it unpacks before a handler can say how much is too
much, and goes on with what a refusal left unread.
"""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestPayloadError
from multidict import MultiDictProxy

from sigmagraph.engine.errors import BadDocument, WriteFailed
from sigmagraph.engine.graph.reading.document import parse_json
from sigmagraph.engine.server.transport.body_budget import give_all, hold, hold_form

__all__ = [
    "CALL",
    "CONTROL",
    "HANDLER",
    "LOGIN",
    "form_body",
    "json_body",
    "let_go",
    "multipart_body",
    "object_body",
    "read_body",
]

HANDLER: Mapping[str, Any] = {"auto_decompress": False, "lingering_time": 2.0, "keepalive_timeout": 75.0}
"""Options of aiohttp's connections. An idle one outlives those of common proxies (60 s); a refused body is read for
two more seconds, so that its sender sees the refusal."""
LOGIN, CONTROL, CALL = 64 * 1024, 1024 * 1024, 8 * 1024 * 1024
"""Bytes: of a form with a key, of an order such as "cancel these", of a call of a published workflow."""
PACKINGS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
"""Window bits for zlib; bare deflate data is called `deflate` by some clients."""
MOST_PACKED = 100
"""How many times its size a body above `CALL` may become: graphs become ten to thirty times, bombs a thousand."""
AT_ONCE = CONTROL  # unpacked on the event loop: a few milliseconds
MOST_FIELDS = 100
NO_FORM = (ValueError, AssertionError, KeyError, HttpProcessingError)
"""What aiohttp raises for a body that is not a form."""
BODY: web.RequestKey[bytes] = web.RequestKey("body", bytes)


@web.middleware
async def let_go(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A body goes with its answer, not when the collector comes by: an error's traceback holds on to its request."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        error.__context__ = None
        raise error.with_traceback(None) from None
    finally:
        if BODY in request:
            del request[BODY]
        give_all(request)


async def read_body(request: web.Request, most: int | None = None) -> bytes:
    """The body, unpacked; 413 where it has more than `most` bytes (None: what the server takes at most)."""
    if BODY not in request:
        limit = min(most or request.client_max_size, request.client_max_size)
        request[BODY] = await _read(request, limit)
    return request[BODY]


async def json_body(request: web.Request, most: int | None = CONTROL) -> Any:
    """The body as JSON whatever its content type says; `None` for no body at all, 400 for anything else."""
    data = await read_body(request, most)
    if not data.strip():
        return None
    try:
        return parse_json(data)
    except BadDocument as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON that is read here: {error}") from error


async def object_body(request: web.Request) -> Mapping[str, Any]:
    """The body as a JSON object, empty where there is none; anything else is a 400."""
    body = await json_body(request)
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return body


async def form_body(request: web.Request, most: int) -> Mapping[str, str]:
    """The fields of a plain form; 400 for anything else."""
    data = await read_body(request, most)
    try:
        return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"the body is not a form: {error}") from error


async def multipart_body(request: web.Request) -> "MultiDictProxy[str | bytearray | bytes | web.FileField]":
    """The parts of a form with files, which wait on disk; 400 for anything else."""
    if _packing(request) is not None:
        raise web.HTTPUnsupportedMediaType(text="a multipart form is taken as it is, without Content-Encoding")
    hold_form(request)
    try:
        return await request.post()
    except ConnectionError:
        raise
    except OSError as error:
        raise WriteFailed("the files of the form", f"cannot be written: {error.strerror or error}") from error
    except NO_FORM as error:
        raise web.HTTPBadRequest(text=f"the body is not a form: {error}") from error


def _packing(request: web.Request) -> tuple[int, ...] | None:
    """How the body is packed; None where it is not. 415 for what is not unpacked here."""
    name = request.headers.get("Content-Encoding", "identity").strip().lower()
    if name in ("identity", ""):
        return None
    if name not in PACKINGS:
        text = f"Content-Encoding {name[:40]!r} is not read here; expected one of {', '.join(PACKINGS)}"
        raise web.HTTPUnsupportedMediaType(text=text, headers={"Accept-Encoding": "gzip, deflate"})
    return PACKINGS[name]


async def _read(request: web.Request, limit: int) -> bytes:
    windows = _packing(request)
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length or 0)
    data = bytearray()
    while chunk := await request.content.readany():
        hold(request, len(chunk))
        data += chunk
        if len(data) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, len(data))
    if windows is None or not data:
        return bytes(data)
    limit = min(limit, max(CALL, MOST_PACKED * len(data)))
    hold(request, limit)
    found = (
        unpacked(data, windows, limit) if limit <= AT_ONCE else await asyncio.to_thread(unpacked, data, windows, limit)
    )
    if (size := len(found)) > limit:
        del found  # or the error's traceback keeps it
        raise web.HTTPRequestEntityTooLarge(limit, size)
    hold(request, len(found) - limit - len(data))
    return found


def unpacked(data: bytes | bytearray, windows: tuple[int, ...], limit: int) -> bytes:
    """The content, or its first `limit` + 1 bytes: no more is ever unpacked."""
    for window in windows:
        box = zlib.decompressobj(window)
        try:
            found = box.decompress(data, limit + 1)
        except zlib.error:
            continue
        if len(found) <= limit and not box.eof:
            break
        return found
    raise RequestPayloadError("it is not packed as Content-Encoding says, or cut off")
