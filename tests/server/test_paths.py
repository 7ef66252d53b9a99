"""However a path is spelt, nothing outside the folder it belongs to is served, listed or written."""

import ast
import asyncio
import re
from itertools import product
from pathlib import Path

import pytest
from yarl import URL

from tests.server.conftest import Api, Serving

SECRET = "outside every folder"
SPELLINGS = (
    "//{path}", "///{path}", "/%2F{path}", "/%2f%2f{path}", "/{path}", "/a/..//{path}", "/x/../../..{path}",
    "/%2e%2e{path}",
    "/../../../../../../..{path}", "/..%2f..%2f..%2f..%2f..%2f..{path}", "/%5c{path}", "/assets/%2F{path}",
    "/%E2%80%A4%E2%80%A4{path}", "/index.html%00{path}", "/link{path}",
)  # fmt: skip


async def raw(api: Api, path: str) -> bytes:
    """The whole reply to `GET path`, with the path as it is: clients tidy paths up before they send them."""
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    await writer.drain()
    reply = await reader.read()
    writer.close()
    return reply


@pytest.fixture
def frontend(tmp_path: Path) -> Path:
    root = tmp_path / "frontend"
    root.mkdir()
    (root / "index.html").write_text("<title>editor</title>")
    (tmp_path / "secret.txt").write_text(SECRET)
    (root / "link").symlink_to("/")
    return root


async def test_no_spelling_of_a_path_leaves_the_editors_folder(
    serving: Serving, frontend: Path, tmp_path: Path
) -> None:
    async with serving(frontend_root=frontend) as api:
        assert b"<title>editor" in await raw(api, "/index.html")
        for spelling in SPELLINGS:
            reply = await raw(api, spelling.format(path=tmp_path / "secret.txt"))
            assert reply.startswith((b"HTTP/1.1 404", b"HTTP/1.1 403", b"HTTP/1.1 400")), (spelling, reply[:200])
            assert SECRET.encode() not in reply, spelling


async def test_a_path_that_no_disk_can_hold_is_not_there(serving: Serving, frontend: Path) -> None:
    async with serving(frontend_root=frontend) as api:
        for path in ("/" + "a" * 300, "/x/" + "a" * 5000, "/" + "a/" * 3000, "/pages/" + "a" * 300):
            assert (await raw(api, path)).startswith(b"HTTP/1.1 404"), path[:20]


SECRET_NAME = "secret-beside-the-folders.txt"
ROOTS = (
    "", "/", "//", "///", "%2F", "%2f%2f", "%2F%2F%2F", "%5C", "%5c%5c", "..%5c..%5c", "../", "..%2F", "..%2f..%2f",
)  # fmt: skip
"""How a spelling begins; what follows is the path of a file outside, whole or as it lies beside the folders."""
INNER = (
    "", "x/../", "x%2F..%2F", "./", "%2e/", "%2E%2E/", "%2e%2e%2f", "%00", "x%00/", "%E2%80%A5/", "%E2%80%A4%E2%80%A4/",
    "%EF%BC%8F", "%C0%AE%C0%AE/", "....//", "x//..//..//",
)  # fmt: skip
QUERIES = (
    "/view?filename={}", "/view?filename=x&subfolder={}", "/view?type=input&filename={}&preview=webp",
    "/userdata?dir={}&recurse=1", "/v2/userdata?path={}", "/view_metadata/checkpoints?filename={}",
    "/api/view?type=temp&filename=x.png&subfolder={}",
)  # fmt: skip
SENDERS = ("FileResponse", "sendfile", "add_static", "static")
PART = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def targets(api: Api) -> list[str]:
    """Every GET route with a variable part, and every query that names a file: one place each for a spelling."""
    found = []
    for route in api.client.app.router.routes():
        pattern = route.resource.canonical if route.resource is not None else ""
        for part in PART.finditer(pattern) if route.method in ("GET", "*") else ():
            fill = {"folder": "checkpoints", "index": "0", "number": "1"}
            rest = PART.sub(lambda other: "{}" if other[0] == part[0] else fill.get(other[1], "x"), pattern)  # noqa: B023
            found.append(rest)
    return [*dict.fromkeys(found), *QUERIES]


def spellings(tmp_path: Path) -> list[str]:
    """Ways to write where the secret lies."""
    ends = (f"{tmp_path}/{SECRET_NAME}", SECRET_NAME, f"..%2F{SECRET_NAME}", f"%2e%2e/{SECRET_NAME}")
    return [root + inner + end.removeprefix("/") for root, inner, end in product(ROOTS, INNER, ends)]


async def answers(api: Api, paths: list[str]) -> list[bytes]:
    """The replies to many raw GETs on one connection."""
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    replies = []
    for path in paths:
        writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        replies.append(head + await reader.readexactly(int(length[1]) if length else 0))
        if b"Connection: close" in head:
            writer.close()
            reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.close()
    return replies


@pytest.mark.parametrize("has_editor", [False, True])
async def test_no_spelling_on_any_route_shows_what_lies_outside(
    serving: Serving, frontend: Path, tmp_path: Path, has_editor: bool
) -> None:
    (tmp_path / SECRET_NAME).write_text(SECRET)
    async with serving(**({"frontend_root": frontend} if has_editor else {})) as api:
        routes = [target for target in targets(api) if "/ws" not in target and "/events" not in target]
        assert len(routes) > 30
        spelt = spellings(tmp_path)
        for number, route in enumerate(routes):
            some = spelt[number % 3 :: 3]  # a third each, so that all are tried on several routes
            paths = [route.replace("{}", spelling) for spelling in some]
            for path, reply in zip(paths, await answers(api, paths), strict=True):
                assert SECRET.encode() not in reply, path
                assert not reply.startswith(b"HTTP/1.1 5"), (path, reply)
                body = reply.partition(b"\r\n\r\n")[2]
                is_listing = b"application/json" in reply and body.startswith(b"[")
                assert not (is_listing and SECRET_NAME.encode() in body), path


async def test_no_spelling_of_a_name_writes_or_deletes_outside(serving: Serving, tmp_path: Path) -> None:
    secret = tmp_path / SECRET_NAME
    secret.write_text(SECRET)
    (tmp_path / "input").mkdir()
    async with serving() as api:
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        for spelling in spellings(tmp_path)[::7]:
            path = f"/userdata/{spelling.replace('/', '%2F')}"
            for method, more in (("POST", ""), ("DELETE", ""), ("POST", "/move/x"), ("POST", "?overwrite=true")):
                await api.client.request(method, URL(path + more, encoded=True), data=b"overwritten")
        assert secret.read_text() == SECRET
        made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
        assert all(path.is_relative_to(tmp_path / "user" / "default") for path in made), made


def test_one_function_sends_every_file() -> None:
    found = [
        path.name
        for path in (Path(__file__).resolve().parents[2] / "engine").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(SENDERS)
    ]
    assert found == ["static.py"]
