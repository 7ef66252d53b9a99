"""`sigmagraph fetch --mirror` against a stand-in that speaks the hub's interface on this machine."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from aiohttp import web
from huggingface_hub import constants, file_download
from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.model_hub import SETS
from sigmagraph.engine.writing import locks

BODY = bytes(range(256)) * 4096  # 1 MiB
NAME = "sd3.5_large_controlnet_canny.safetensors"


class HubServer:
    """HEAD and GET of `/{owner}/{repository}/resolve/{revision}/{file}`, with ranges, as for large files."""

    def __init__(self) -> None:
        self.told = hashlib.sha256(BODY).hexdigest()
        self.breaks_after: int | None = None
        self.status = 200
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.Response(status=self.status)
        tag = {"ETag": f'"{self.told}"', "X-Linked-Etag": f'"{self.told}"'} if self.told else {}
        headers = tag | {
            "X-Linked-Size": str(len(BODY)),
            "X-Repo-Commit": "c" * 40,
            "Accept-Ranges": "bytes",
        }
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(BODY))})
        self.paths.append(request.path)
        self.ranges.append(asked := request.headers.get("Range"))
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        headers["Content-Length"] = str(len(BODY) - start)
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        stop, self.breaks_after = self.breaks_after, None
        await response.write(BODY[start:stop])
        if stop is not None:
            await asyncio.sleep(0.05)  # what was sent arrives
            assert request.transport is not None
            request.transport.close()
        return response

    async def serve(self, ready: threading.Event, done: asyncio.Event) -> None:
        served = web.Application()
        served.router.add_route("*", "/{owner}/{repository}/resolve/{revision}/{file:.+}", self.answer)
        runner = web.AppRunner(served)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await done.wait()
        await runner.cleanup()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server, ready, loop = HubServer(), threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(ready, done),))
    thread.start()
    assert ready.wait(10)
    yield server
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    loop.close()


def fetched(hub: HubServer, home: Path) -> tuple[int, str, Path]:
    done = CliRunner().invoke(app, ["fetch", "sd3.5-large-canny", "--mirror", hub.url, "--home", str(home)])
    return done.exit_code, done.output, home / "models/controlnet" / NAME


def test_a_download_that_breaks_goes_on_where_it_stopped(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # what breaks off is written
    hub.breaks_after = 300_000
    code, output, target = fetched(hub, tmp_path)
    assert code == 0, output
    assert target.read_bytes() == BODY
    first, second = hub.ranges
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").partition("-")[0]) <= 300_000
    [source] = SETS["sd3.5-large-canny"].sources
    assert set(hub.paths) == {f"/{source.repository}/resolve/main/{source.file}"}


def test_what_a_fetch_that_was_ended_has_brought_is_kept_for_the_next(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = file_download.http_get

    def interrupted(url: str, file: BinaryIO, **_: object) -> None:
        file.write(BODY[:400_000])
        raise KeyboardInterrupt

    monkeypatch.setattr(file_download, "http_get", interrupted)
    assert fetched(hub, tmp_path)[0] == 130
    monkeypatch.setattr(file_download, "http_get", whole)
    code, output, target = fetched(hub, tmp_path)
    assert code == 0, output
    assert hub.ranges == ["bytes=400000-"]
    assert target.read_bytes() == BODY
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != target]


def test_what_the_hub_has_replaced_is_not_gone_on_from(hub: HubServer, tmp_path: Path) -> None:
    old = tmp_path / f"models/controlnet/.fetch/{NAME}.0123456789abcdef.part"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"half of what was there before")
    code, output, target = fetched(hub, tmp_path)
    assert code == 0, output
    assert (target.read_bytes(), hub.ranges) == (BODY, [None])
    assert not list(old.parent.iterdir())


def test_one_process_at_a_time_brings_a_file(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, second = file_download.http_get, list[tuple[int, str]]()

    def meanwhile(*arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(file_download, "http_get", whole)
        second.append(fetched(hub, tmp_path)[:2])
        whole(*arguments, **more)

    monkeypatch.setattr(file_download, "http_get", meanwhile)
    code, output, target = fetched(hub, tmp_path)
    assert code == 0, output
    assert target.read_bytes() == BODY
    [(refused, words)] = second
    assert refused == 1
    assert "is being fetched by another process already" in words


@pytest.mark.parametrize(("platform", "is_held"), [("linux", True), ("win32", False)])
def test_a_file_takes_its_place_under_its_lock_and_closed_where_an_open_one_cannot(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, is_held: bool
) -> None:
    put, held = Path.replace, list[bool]()

    def watched(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            with path.open("ab") as other:
                held.append(not locks(other))
        return put(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    monkeypatch.setattr("sigmagraph.engine.cli.fetch.sys", SimpleNamespace(platform=platform))
    code, output, target = fetched(hub, tmp_path)
    assert code == 0, output
    assert (target.read_bytes(), held) == (BODY, [is_held])


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_fetched(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    code, output, _ = fetched(hub, tmp_path)
    assert code == 1
    assert "takes 1.0 MB more, and 1.0 MB are free" in output
    assert hub.ranges == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "could not be fetched: Client error '404"), (500, "could not be fetched: Server error '500")],
)
def test_an_answer_that_is_an_error_is_told(hub: HubServer, tmp_path: Path, status: int, words: str) -> None:
    hub.status = status
    code, output, _ = fetched(hub, tmp_path)
    assert code == 1
    assert words in output
    assert "Traceback" not in output
    hub.status, hub.told = 200, ""
    assert "has no tag there: this server does not answer as the hub does" in fetched(hub, tmp_path)[1]


def test_what_arrives_damaged_is_refused_and_not_kept(hub: HubServer, tmp_path: Path) -> None:
    hub.told = hashlib.sha256(b"something else").hexdigest()
    code, output, target = fetched(hub, tmp_path)
    assert code == 1
    assert "arrived damaged" in output
    assert not target.exists()
    assert not list(tmp_path.rglob(NAME))
    hub.told = hashlib.sha256(BODY).hexdigest()
    assert fetched(hub, tmp_path)[0] == 0
    assert target.read_bytes() == BODY
