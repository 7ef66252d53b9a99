"""What answers without a key, all of it by name; and that a flood of each costs little before anybody shows a key."""

import asyncio
import contextlib
import gzip
import re
import resource
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sigmagraph.engine.server.app import make_app
from sigmagraph.engine.server.endpoints.endpoint import load_endpoints
from sigmagraph.engine.server.transport.connections import CONNECTIONS, Connections, Patience, listening
from tests.server.endpoints.conftest import ENDPOINTS, make_home, parts_of, service_of
from tests.server.test_every_route import everything_of

OPEN = {
    ("GET", "/health"), ("HEAD", "/health"), ("GET", "/api/health"), ("HEAD", "/api/health"),
    ("GET", "/login"), ("HEAD", "/login"), ("POST", "/login"),
    ("GET", "/openapi.json"), ("GET", "/api-docs"), ("GET", "/api-docs/{file}"), ("GET", "/outputs/{id}/{name}"),
}  # fmt: skip
"""Every route that a stranger is answered on; docs/service.md says the same."""
BOMB = gzip.compress(bytes(50_000_000), 9)
CONNECTIONS_AT_ONCE = 64
DOCS = Path(__file__).resolve().parents[2] / "docs"


@asynccontextmanager
async def guarded(home: Path) -> AsyncIterator[tuple[str, web.Application, dict[str, str]]]:
    """A server with a key and all its guards, behind watched connections; its URL, itself, and the key's header."""
    make_home(home)
    jobs, folders = service_of(home)
    await jobs.start()
    parts = parts_of(home, jobs, folders, load_endpoints(ENDPOINTS))
    parts.connections = Connections(CONNECTIONS_AT_ONCE, Patience(head_s=1.0, body_s=1.0))
    secret, _ = await jobs.accounts.create("tester", credits=10**8)
    runner = web.AppRunner(app := make_app(parts), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    try:
        async with listening(runner, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", app, {"x-api-key": secret}
    finally:
        await runner.cleanup()
        await jobs.stop(0.0)


async def test_the_routes_that_answer_strangers_are_these(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (url, app, _), aiohttp.ClientSession(url) as client:
        patterns = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
        answered = set()
        for method, path in everything_of(app):
            async with client.request(method, path, allow_redirects=False) as response:
                if response.status not in (401, 404, 405):
                    answered.add((method, path))
        for method, pattern in OPEN:
            assert (method, pattern) in patterns or ("*", pattern) in patterns, pattern
        assert answered <= {(method, pattern) for method, pattern in OPEN if "{" not in pattern}, answered
        async with client.get("/outputs/x/0.png?expires=9999999999&signature=x") as forged:
            assert forged.status == 404
        async with client.get("/api-docs/start.js") as script:
            assert script.status == 200


def test_the_pages_for_operators_name_every_one_of_them() -> None:
    for page in ("service.md", "hardening.md"):
        told = (DOCS / page).read_text("utf-8")
        for what in ("`/health`", "login page", "`/openapi.json`", "`/api-docs`", "sign"):
            assert what in told, (page, what)


async def said(port: int, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    return reader, writer


def requests(path: str, host: str) -> dict[str, bytes]:
    """Hostile requests of one path: bodies, headers, and halves of both."""
    path = re.sub(r"\{\w+\}", "x", path)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n".encode()
    get = head.replace(b"POST", b"GET", 1)
    form = b"Content-Type: application/x-www-form-urlencoded\r\n"
    packed = head + form + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    return {
        "a bomb": packed,
        "a bomb with GET": packed.replace(b"POST", b"GET", 1),
        "chunks without end": head + form + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20,
        "a length nobody sends": head + form + b"Content-Length: 99999999\r\n\r\nkey=",
        "many fields": head + form + b"Content-Length: 60000\r\n\r\n" + b"a=&" * 20_000,
        "many headers": get + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
        "a long header": get + b"X-Long: " + b"y" * 200_000 + b"\r\n\r\n",
        "a long path": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        "half a head": get + b"X-Half: ",
        "half a body": head + form + b"Content-Length: 1000\r\n\r\nkey=",
        "nothing": b"",
    }


@pytest.mark.parametrize("path", sorted({pattern for _, pattern in OPEN} | {"/prompt", "/v1/x", "/ws", "/"}))
async def test_a_flood_of_an_open_route_costs_little_and_an_honest_caller_is_served(tmp_path: Path, path: str) -> None:
    async with guarded(tmp_path) as (url, app, key), aiohttp.ClientSession(url, headers=key) as honest:
        port = int(url.rpartition(":")[2])
        async with honest.get("/openapi.json") as response:  # made once, whoever asks first
            assert response.status == 200
        tracemalloc.start()
        begun, busy = time.monotonic(), time.process_time()
        try:
            for data in requests(path, f"127.0.0.1:{port}").values():
                made = await asyncio.gather(*(said(port, data) for _ in range(20)))
                assert len(app[CONNECTIONS]) <= CONNECTIONS_AT_ONCE
                async with honest.get("/v1/get-user-credits") as response:
                    assert response.status == 200
                for _, writer in made:
                    writer.close()
            assert tracemalloc.get_traced_memory()[1] < 48_000_000  # 220 hostile requests, 20 at once
        finally:
            tracemalloc.stop()
        assert time.process_time() - busy < 20.0
        assert time.monotonic() - begun < 30.0


async def test_halves_of_requests_are_closed_and_the_honest_served_meanwhile(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (url, app, key), aiohttp.ClientSession(url, headers=key) as honest:
        port = int(url.rpartition(":")[2])
        halves = [await said(port, b"POST /login HTTP/1.1\r\nHost: x\r\nX: ") for _ in range(3 * CONNECTIONS_AT_ONCE)]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > CONNECTIONS_AT_ONCE
        async with honest.get("/v1/get-user-credits") as response:
            assert response.status == 200
        assert len(app[CONNECTIONS]) <= CONNECTIONS_AT_ONCE
        ends = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in halves), return_exceptions=True), 8
        )
        assert len(ends) == 3 * CONNECTIONS_AT_ONCE
        for _, writer in halves:
            writer.close()
