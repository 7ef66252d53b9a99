"""Connections: how many there are, and how long one may take to say what it wants. Knows no routes and no keys.

aiohttp waits for the rest of a request for as long as it takes. Here each connection's protocol is wrapped: what began
a request has seconds to finish its head, and a body has to keep a least pace. Where all places are taken, the
connection that has waited longest without a request makes room for a new one.
"""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine.server.transport.not_http import discreet

__all__ = ["CONNECTIONS", "Connections", "Patience", "listening", "places", "watch_connections", "watched"]

LOG = logging.getLogger("sigmagraph.http")
SPARE = 256
"""Descriptors for everything else: the database, files that are sent, workers, and what the loop accepts at once."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TURN_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for a request's head, and for its body: `body_s`, and one more for every `pace` bytes that came."""

    head_s: float = 15.0
    body_s: float = 30.0
    pace: float = 16 * 1024.0


def places(wanted: int) -> int:
    """How many connections fit below the limit of descriptors, which is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + SPARE:
        most = wanted + SPARE if hard == resource.RLIM_INFINITY else min(wanted + SPARE, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(8, min(wanted, soft - SPARE))


class Connections:
    """Those there are, in the order they came; made for one event loop."""

    def __init__(self, most: int, patience: Patience | None = None) -> None:
        self.most, self.patience = most, patience or Patience()
        self._open: dict[asyncio.BaseTransport, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def factory(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """The protocol factory for a listener: what `make` makes, watched."""
        return lambda: Connection(self, make())

    def admit(self, connection: "Connection", transport: asyncio.Transport) -> bool:
        """Give it a place, if need be that of the one that has waited longest without a request."""
        if len(self._open) >= self.most:
            idle = (candidate for candidate in self._open.values() if candidate.request is None)
            oldest = min(idle, key=lambda candidate: candidate.quiet_since, default=None)
            if oldest is None:
                LOG.warning("every connection is taken")
                return False
            oldest.abort()
        self._open[transport] = connection
        return True

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """It is closed."""
        self._open.pop(transport, None)

    def of(self, request: web.Request) -> "Connection | None":
        """The connection a request came by; None where a test's server made it."""
        return self._open.get(request.transport) if request.transport is not None else None

    def close_overdue(self, now: float) -> int:
        """Close what has kept this server waiting for too long; says how many."""
        overdue = [connection for connection in self._open.values() if connection.is_overdue(now, self.patience)]
        for connection in overdue:
            connection.abort()
        return len(overdue)


class Connection(asyncio.Protocol):
    """One connection: aiohttp's protocol, and what is known of its pace."""

    def __init__(self, others: Connections, inner: asyncio.Protocol) -> None:
        self._others, self._inner = others, inner
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._awaited_since: float | None = None
        self._received = 0
        self.quiet_since = 0.0
        self.request: web.Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if not self._others.admit(self, transport):
            transport.write(FULL)
            transport.close()
            return
        self._transport, now = transport, self._loop.time()
        self._awaited_since = self.quiet_since = now
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._others.leave(self._transport)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._awaited_since is None:
            self._awaited_since = self._loop.time()
        self._received += len(data)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def begin(self, request: web.Request) -> None:
        """A request's head is there."""
        self.request, self._received, self._awaited_since = request, 0, self._loop.time()

    def end(self) -> None:
        """The request is answered."""
        self.request, self._awaited_since, self.quiet_since = None, None, self._loop.time()

    def is_overdue(self, now: float, patience: Patience) -> bool:
        """Whether the other side has had time enough; a time in which this side does not read is not counted."""
        if self._awaited_since is None or self._transport is None:
            return False
        if self.request is None:
            return now > self._awaited_since + patience.head_s
        if self.request.content.is_eof():
            return False
        if not self._transport.is_reading():
            self._awaited_since, self._received = now, 0
        return now > self._awaited_since + patience.body_s + self._received / patience.pace

    def abort(self) -> None:
        """Close it without another word."""
        if self._transport is not None:
            self._others.leave(self._transport)
            self._transport.abort()


CONNECTIONS: web.AppKey[Connections] = web.AppKey("connections", Connections)


@web.middleware
async def watched(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that its request has begun, and that it is answered."""
    connection = request.app[CONNECTIONS].of(request)
    if connection is None:
        return await handler(request)
    connection.begin(request)
    try:
        return await handler(request)
    finally:
        connection.end()


@contextlib.asynccontextmanager
async def listening(runner: web.AppRunner, listener: socket.socket) -> AsyncIterator[None]:
    """Take connections for the application from a bound socket, for as long as the context lasts."""
    assert runner.server is not None
    factory = runner.app[CONNECTIONS].factory(partial(discreet, runner.server))
    server = await asyncio.get_running_loop().create_server(factory, sock=listener)
    try:
        yield
    finally:
        server.close()


async def watch_connections(app: web.Application) -> AsyncIterator[None]:
    """Close what is overdue, twice a second, for as long as the server runs."""
    task = asyncio.create_task(_watch(app[CONNECTIONS]))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _watch(connections: Connections) -> None:
    while True:
        await asyncio.sleep(TURN_S)
        closed = connections.close_overdue(asyncio.get_running_loop().time())
        if closed:
            LOG.info("connections kept this server waiting", extra={"closed": closed})
