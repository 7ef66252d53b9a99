"""`GET /ws`: one connected page or client. Reads its feature flags, writes what its outbox holds."""

import asyncio
import contextlib
import json
import secrets
import struct
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.server.comfy.hub import HUB, ConnectedClient
from sigmagraph.engine.server.comfy.missed_messages import read_marks
from sigmagraph.engine.server.comfy.socket_messages import Message
from sigmagraph.engine.server.comfy.system import flags
from sigmagraph.engine.server.context import OWNER, SETTINGS

__all__ = ["SOCKETS", "socket"]

SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("sockets", set)
CLOSE_S = 2.0


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Serve one socket until either side closes it.

    With `events=1` every message of a job names its `event`; `after=` (once per job) is the last one the client heard.
    """
    after = read_marks(request.query.getall("after", []))
    ws = web.WebSocketResponse(heartbeat=30.0, max_msg_size=4 * 1024 * 1024, compress=False, timeout=CLOSE_S)
    await ws.prepare(request)
    hub, sockets = request.app[HUB], request.app[SOCKETS]
    client = ConnectedClient(request[OWNER], request.query.get("clientId") or secrets.token_hex(16), budget=hub.budget)
    client.takes_bare_previews = request.app[SETTINGS].bare_previews
    client.is_numbered = request.query.get("events") == "1"
    sockets.add(ws)
    writer = asyncio.create_task(_write(request, ws, client))
    closer = asyncio.create_task(_close_at_last(request, client, writer))
    try:
        await hub.join(client, after)
        await _read(ws, client, flags(request.app[SETTINGS]))
    except EngineError as error:  # what it missed cannot be read: it may come again
        await ws.close(code=WSCloseCode.TRY_AGAIN_LATER, message=str(error).encode()[:120])
    finally:
        sockets.discard(ws)
        hub.leave(client)
        closer.cancel()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await writer
    return ws


async def _write(request: web.Request, ws: web.WebSocketResponse, client: ConnectedClient) -> None:
    """Send until the socket or the outbox closes; a client too far behind is told so."""
    with contextlib.suppress(ConnectionError):
        async for messages in client.outbox.drain():
            if len(messages) > 1 and _takes_all(request, ws):
                assert request.transport is not None
                request.transport.write(b"".join(map(frame, messages)))
                continue
            for message in messages:
                await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
    if not ws.closed:
        await ws.close(code=1013, message=b"too far behind")


async def _close_at_last(request: web.Request, client: ConnectedClient, writer: "asyncio.Task[None]") -> None:
    """A client too far behind is not told so where it reads nothing: what is being sent to it would wait for ever."""
    await client.outbox.closed.wait()
    await asyncio.wait({writer}, timeout=CLOSE_S)
    if not writer.done() and request.transport is not None:
        request.transport.abort()


def _takes_all(request: web.Request, ws: web.WebSocketResponse) -> bool:
    """Whether nothing waits on the connection: then several messages go out as one write, past aiohttp's one for each.

    What a trivial prompt says is a dozen messages, and writing them one by one takes longer than making them. Where
    something waits, aiohttp's own sending waits too.
    """
    transport = request.transport
    if transport is None or transport.is_closing() or ws.closed:
        return False
    return transport.get_write_buffer_size() == 0


def frame(message: str | bytes) -> bytes:
    """One unmasked, final frame of RFC 6455, section 5.2."""
    data = message.encode() if isinstance(message, str) else message
    code = 0x81 if isinstance(message, str) else 0x82
    if len(data) < 126:
        return bytes((code, len(data))) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", code, 126, len(data)) + data
    return struct.pack("!BBQ", code, 127, len(data)) + data


async def _read(ws: web.WebSocketResponse, client: ConnectedClient, ours: dict[str, Any]) -> None:
    """The first valid JSON may name the client's flags; whatever comes later is ignored."""
    is_first = True
    async for message in ws:
        if message.type is not WSMsgType.TEXT or not is_first:
            continue
        try:
            body = json.loads(message.data)
        except (ValueError, RecursionError):  # no JSON, or a number of more digits than Python reads
            continue
        is_first = False
        if isinstance(body, dict) and body.get("type") == "feature_flags":
            theirs = body.get("data")
            client.takes_metadata = isinstance(theirs, dict) and theirs.get("supports_preview_metadata") is True
            client.send(Message("feature_flags", ours))
