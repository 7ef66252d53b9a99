"""However a path is spelt, nothing outside the folder it belongs to is served."""

import asyncio
from pathlib import Path

import pytest

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
