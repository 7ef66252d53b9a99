"""Half a request, a body that does not come, more connections than there is room for: none keeps the server."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from sigmagraph.engine.server.monitoring.logs import JsonFormatter
from sigmagraph.engine.server.transport import connections
from sigmagraph.engine.server.transport.body_budget import BUDGET, BodyBudget
from sigmagraph.engine.server.transport.connections import CONNECTIONS, Connections, Patience, listening, watched
from sigmagraph.engine.server.transport.request_bodies import HANDLER, read_body

HALF = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
WHOLE = b"GET /wait HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BODY = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
NOW = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nhi"


class Front:
    """A small server behind watched connections, and raw clients of it."""

    def __init__(self, known: Connections, port: int) -> None:
        self.known, self.port = known, port
        self.writers: list[asyncio.StreamWriter] = []

    async def client(self, said: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(said)
        await writer.drain()
        return reader


@asynccontextmanager
async def front(most: int = 100, patience: Patience | None = None) -> AsyncIterator[Front]:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await read_body(request))

    async def wait(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    app = web.Application(middlewares=[watched], handler_args=HANDLER)
    app.add_routes([web.post("/echo", echo), web.get("/wait", wait)])
    app[CONNECTIONS], app[BUDGET] = Connections(most, patience), BodyBudget(2**20, 2**20)
    app.cleanup_ctx.append(connections.watch_connections)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with listening(runner, listener):
        made = Front(app[CONNECTIONS], listener.getsockname()[1])
        try:
            yield made
        finally:
            for writer in made.writers:
                writer.close()
    await runner.cleanup()


async def ends(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Whether the server closes the connection in time."""
    with contextlib.suppress(ConnectionError):
        try:
            await asyncio.wait_for(reader.read(), within_s)
        except TimeoutError:
            return False
    return True


async def test_half_a_head_or_half_a_body_is_not_waited_for() -> None:
    async with front(patience=Patience(head_s=0.3, body_s=0.3)) as server:
        slow = [await server.client(said) for said in (b"", b"G", HALF, BODY % 100 + b"half")]
        busy = await server.client(WHOLE)
        answered = await server.client(NOW)
        assert b"200 OK" in await answered.readuntil(b"hi")
        assert all(await asyncio.gather(*(ends(client, 5.0) for client in slow)))
        assert not await ends(busy, 0.1)
        assert not await ends(answered, 0.1)  # it waits for its next request, as browsers have it
        assert len(server.known) == 2


async def test_a_body_that_keeps_a_pace_is_waited_for_and_one_that_dribbles_is_not() -> None:
    async with front(patience=Patience(head_s=5, body_s=0.5, pace=10.0)) as server:
        steady, dribble = await server.client(BODY % 20), await server.client(BODY % 20)
        for step in range(20):
            server.writers[0].write(b"x")
            server.writers[1].write(b"y" if step < 3 else b"")
            await asyncio.sleep(0.08)
        assert b"200 OK" in await steady.readuntil(b"x" * 20)
        assert await ends(dribble, 0.1)


async def test_beyond_the_limit_the_one_that_waits_longest_makes_room() -> None:
    async with front(most=8) as server:
        busy = await server.client(WHOLE)
        await asyncio.sleep(0.05)
        idle = [await server.client(HALF) for _ in range(40)]
        fresh = await server.client(NOW)
        assert b"200 OK" in await asyncio.wait_for(fresh.readuntil(b"hi"), 5.0)
        assert len(server.known) <= 8
        assert all(await asyncio.gather(*(ends(client, 1.0) for client in idle[:30])))
        assert not await ends(busy, 0.05)


async def test_where_every_connection_is_at_work_a_new_one_is_told_so() -> None:
    async with front(most=8) as server:
        for _ in range(8):
            await server.client(WHOLE)
        await asyncio.sleep(0.1)
        refused = await server.client(NOW)
        assert (await asyncio.wait_for(refused.read(), 5.0)).startswith(b"HTTP/1.1 503")


def test_the_places_leave_descriptors_for_everything_else() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
        assert connections.places(1000) == 400 - connections.SPARE
    except ValueError:  # a hard limit below 400: nothing to try
        return
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s" + b"A" * 20_000 + b"\r\n\r\n", "too long"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\x01\r\n\r\n", "a header"),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nAuthorization Bearer %s\r\n\r\n", "a header"),
        (b"GET /echo?key=%s" + b"A" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "too long"),
        (b"GET /ec\x02ho?key=%s HTTP/1.1\r\nHost: x\r\n\r\n", "the address"),
        (b"GET http://%s:x@[::1/ HTTP/1.1\r\nHost: x\r\n\r\n", "the address"),
        (b"G\x02T /echo?key=%s HTTP/1.1\r\nHost: x\r\n\r\n", "the first line"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n", "size"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n", "size"),
        (NOW + b"GET /echo HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\x01\r\n\r\n", "a header"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%s\r\n\r\n", "HTTPS"),
    ],
)
async def test_what_cannot_be_read_is_refused_without_a_word_of_it(
    said: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The line that cannot be read may hold a key: neither the answer nor the log repeats it."""
    async with front() as server:
        reader = await server.client(said.replace(b"%s", b"SG_SECRET"))
        answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    assert " 400 " in answer
    assert reason in answer.splitlines()[-1]
    [record] = caplog.records
    line = JsonFormatter().format(record)
    assert reason in line
    assert "SECRET" not in answer + line
    assert record.exc_info is None
    assert len(line) < 300
