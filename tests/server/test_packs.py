"""Routes and scripts of packs: only by their settings, behind the same keys and origins, and as data."""

import asyncio
import logging
import socket
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from yarl import URL

from sigmagraph.engine.compose.pack_routes import serve_routes
from sigmagraph.engine.compose.shims.serving import PromptServer
from sigmagraph.engine.server import packs
from tests.server.conftest import Serving
from tests.server.known_keys import FixedKeys, account

ADMIN = {"read", "submit", "admin"}
KEYS = {"reader": account("r", {"read", "submit"}), "chief": account("c", ADMIN), "other": account("o", ADMIN)}
CUT_OFF = "an answer was not handed on to its end"
SEEN: list[dict[str, str]] = []


def registered() -> PromptServer:
    """A server as packs see it, with what a pack put into it."""
    server = PromptServer()

    @server.routes.get("/mine/hello")
    async def hello(request: web.Request) -> web.Response:
        SEEN.append(dict(request.headers))
        return web.json_response({"who": request.query.get("who")}, headers={"Set-Cookie": "a=b", "X-Other": "1"})

    @server.routes.post("/mine/{what}")
    async def put(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.match_info['what']}:{(await request.read()).decode()}")

    @server.routes.get("/mine/away")
    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("https://elsewhere.example/")

    @server.routes.get("/mine/boom")
    async def boom(request: web.Request) -> web.Response:
        raise RuntimeError("a fault of the pack")

    @server.routes.get("/mine/dies")
    async def dies(request: web.Request) -> web.StreamResponse:
        length = {"Content-Length": "100000"} if request.query.get("length") else {}
        response = web.StreamResponse(headers=length)
        await response.prepare(request)
        await response.write(b"the first half")
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response

    @server.routes.get("/mine/endless")
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(100_000))

    @server.routes.get("/prompt")
    async def prompt(request: web.Request) -> web.Response:
        return web.Response(text="a pack's own")

    @server.routes.get("/mine/hello")
    async def again(request: web.Request) -> web.Response:
        raise AssertionError("the first one has the path")

    for route in server.routes:
        server.routes.packs[id(route)] = "mine"
    return server


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Path, dict[str, Any]]]:
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:
        place = Path(folder) / "s"
        yield place, {"routes": serve_routes(registered(), place), "web": {}}


async def test_without_the_setting_nothing_of_a_pack_is_served(serving: Serving, served: Any) -> None:
    async with serving(packs=(None, served[1])) as api:
        for path in ("/mine/hello", "/packs/mine/mine/hello"):
            assert (await api.client.get(path)).status == 404
        assert (await api.client.post("/mine/x")).status in (404, 405)


async def test_a_route_answers_as_it_was_registered_and_under_its_packs_name(serving: Serving, served: Any) -> None:
    async with serving(packs=served, pack_routes=True) as api:
        for path in ("/mine/hello?who=me", "/api/mine/hello?who=me", "/packs/mine/mine/hello?who=me"):
            assert await api.json(path) == {"who": "me"}
        assert await (await api.client.post("/mine/shelf", data=b"book")).text() == "shelf:book"
        assert (await api.client.get("/mine/nothing")).status == 404
        assert (await api.client.get("/packs/yours/mine/hello")).status == 404
        assert (await api.client.get("/mine/boom")).status == 500
        assert (await api.client.get("/mine/away")).status == 502
        assert "queue_remaining" in str(await api.json("/prompt"))
        assert await (await api.client.get("/packs/mine/prompt")).text() == "a pack's own"


async def test_keys_and_cookies_stay_here_and_a_packs_do_not_come(serving: Serving, served: Any) -> None:
    async with serving(packs=served, pack_routes=True, keys=FixedKeys(KEYS)) as api:
        SEEN.clear()
        headers = {"Authorization": "Bearer chief", "Cookie": "sigmagraph_key=chief", "X-API-Key": "chief"}
        response = await api.client.get("/mine/hello", headers=headers)
        assert response.status == 200
        assert not {"authorization", "cookie", "x-api-key", "origin"} & {name.lower() for name in SEEN[0]}
        assert "Set-Cookie" not in response.headers
        assert "X-Other" not in response.headers
        assert response.headers["Content-Security-Policy"] == "sandbox"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize("path", ["/mine/hello", "/packs/mine/mine/hello"])
async def test_it_takes_an_administrators_key(serving: Serving, served: Any, path: str) -> None:
    async with serving(packs=served, pack_routes=True, keys=FixedKeys(KEYS)) as api:
        for key, status in ((None, 401), ("wrong", 401), ("reader", 403), ("chief", 200)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            assert (await api.client.get(path, headers=headers)).status == status, key


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_pages_of_other_sites_do_not_reach_a_route_by_a_picture(serving: Serving, served: Any, site: str) -> None:
    async with serving(packs=served, pack_routes=True) as api:
        SEEN.clear()
        for headers in ({"Sec-Fetch-Site": site}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            assert (await api.client.get("/mine/hello", headers=headers)).status == 403
            assert (await api.client.post("/mine/x", data=b"", headers=headers)).status == 403
        assert SEEN == []
        assert (await api.client.get("/mine/hello", headers={"Sec-Fetch-Site": "same-origin"})).status == 200


async def test_a_body_that_is_too_large_is_not_handed_on(serving: Serving, served: Any) -> None:
    async with serving(packs=served, pack_routes=True) as api:
        assert (await api.client.post("/mine/x", data=BytesIO(bytes(9_000_000)))).status == 413


@pytest.mark.parametrize("query", ["", "?length=1"])
async def test_an_answer_that_breaks_off_never_looks_whole(
    serving: Serving, served: Any, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(packs=served, pack_routes=True) as api:
        for _ in range(10):  # more than there are places
            response = await api.client.get("/mine/dies" + query)
            assert response.status == 200
            with pytest.raises((ClientPayloadError, ConnectionResetError)):
                await asyncio.wait_for(response.read(), 5)
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [CUT_OFF] * 10
        head, connection = await unread(api, f"/mine/dies{query}", version="1.0")
        assert head.startswith(b"HTTP/1.0 200")
        with pytest.raises(ConnectionResetError):  # where the end of the connection is the end of the answer
            await read_out(connection)
        assert await api.json("/mine/hello?who=me") == {"who": "me"}


async def unread(api: Any, path: str, key: str = "", version: str = "1.1") -> tuple[bytes, socket.socket]:
    """The head of an answer, and the connection on which nobody reads the rest."""
    loop, connection = asyncio.get_running_loop(), socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await loop.sock_connect(connection, (api.client.host, api.client.port))
    said = f"Authorization: Bearer {key}\r\n" if key else ""
    await loop.sock_sendall(connection, f"GET {path} HTTP/{version}\r\nHost: {api.client.host}\r\n{said}\r\n".encode())
    return await asyncio.wait_for(loop.sock_recv(connection, 300), 5), connection


async def read_out(connection: socket.socket) -> None:
    """Read until the connection ends."""
    with connection:
        while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 65536), 5):
            pass


async def test_who_reads_nothing_holds_its_own_share_of_the_places_and_not_for_long(
    serving: Serving, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "WRITE_S", 1.0)
    async with serving(packs=served, pack_routes=True, keys=FixedKeys(KEYS)) as api:

        async def status(key: str) -> int:
            return (await api.client.get("/mine/hello", headers={"Authorization": f"Bearer {key}"})).status

        held = [await unread(api, "/mine/endless", "chief") for _ in range(packs.SHARE)]
        assert {head.split(b"\r\n")[0] for head, _ in held} == {b"HTTP/1.1 200 OK"}
        refused = await api.client.get("/mine/hello", headers={"Authorization": "Bearer chief"})
        assert (refused.status, "Retry-After" in refused.headers) == (503, True)
        assert await status("other") == 200
        held += [await unread(api, "/mine/endless", "other") for _ in range(packs.AT_ONCE - packs.SHARE)]
        assert await status("other") == 503
        for _ in range(50):
            if await status("chief") == 200:
                break
            await asyncio.sleep(0.1)
        assert (await status("chief"), await status("other")) == (200, 200)
        for _, connection in held:
            with pytest.raises(ConnectionResetError):
                await read_out(connection)


async def test_a_worker_that_is_gone_is_a_503(serving: Serving, served: Any, tmp_path: Path) -> None:
    async with serving(packs=(tmp_path / "none", served[1]), pack_routes=True) as api:
        assert (await api.client.get("/mine/hello")).status == 503


def pack(tmp_path: Path) -> dict[str, Any]:
    """A pack with scripts, and beside them what is nobody's business."""
    own = tmp_path / "packs/mine"
    files = ("web/a.js", "web/sub/b.js", "web/b.css", "web/code.py", "web/.git/c.js", "secret.js", "page.html")
    for name in files:
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(name)
    (own / "web/out.js").symlink_to(own / "secret.js")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/d.js").write_text("d")
    return {"web": {"mine": str(own / "web"), "outside": str(tmp_path / "other")}}


async def test_scripts_of_a_pack_are_listed_and_sent_where_the_operator_wants_it(
    serving: Serving, tmp_path: Path
) -> None:
    told = pack(tmp_path)
    editor = tmp_path / "editor"
    editor.mkdir()
    options = {"frontend_root": editor, "packs": (None, told), "custom_nodes": (tmp_path / "packs",)}
    async with serving(**options) as api:
        assert not [path for path in await api.json("/extensions") if "mine" in path]
        assert (await api.client.get("/extensions/mine/a.js")).status == 404
    async with serving(pack_web=True, **options) as api:
        listed = [path for path in await api.json("/extensions") if "editor-link" not in path]
        assert listed == ["/extensions/mine/a.js", "/extensions/mine/out.js", "/extensions/mine/sub/b.js"]
        for name in ("a.js", "sub/b.js", "b.css"):
            response = await api.client.get(f"/extensions/mine/{name}")
            assert await response.text() == f"web/{name}"
            assert response.headers["Cache-Control"] == "no-cache"
        leads = (
            "code.py",
            ".git/c.js",
            "out.js",
            "../secret.js",
            "%2e%2e/secret.js",
            "..%2fsecret.js",
            "",
            "sub",
            "none.js",
        )
        for name in leads:
            assert (await api.client.get(f"/extensions/mine/{name}")).status == 404, name
        assert (await api.client.get("/extensions/outside/d.js")).status == 404
        assert (await api.client.post("/extensions/mine/a.js")).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/health", "/api/health", "/login", "/%68ealth"])
async def test_a_pack_that_catches_all_gets_nothing_from_strangers_on_the_paths_that_answer_them(
    serving: Serving, tmp_path: Path, method: str, path: str
) -> None:
    server = PromptServer()

    @server.routes.route("*", "/{tail:.*}")
    async def everything(request: web.Request) -> web.Response:
        return web.Response(text="the pack")

    for route in server.routes:
        server.routes.packs[id(route)] = "mine"
    with tempfile.TemporaryDirectory(prefix="sg-") as folder:
        place = Path(folder) / "s"
        told = {"routes": serve_routes(server, place), "web": {}}
        async with serving(packs=(place, told), pack_routes=True, keys=FixedKeys(KEYS)) as api:
            url = URL(str(api.client.make_url("/")).rstrip("/") + path, encoded=True)
            async with api.client.session.request(method, url, allow_redirects=False) as response:
                assert "the pack" not in await response.text()
                assert response.status in (401, 405) or (method, path) == ("POST", "/login")
