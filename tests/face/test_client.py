"""The client against a real server, and its streams against one that breaks off."""

import asyncio
import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

import sigmagraph as sg
from sigmagraph import client as module
from sigmagraph.client_calls import Call, Event, Image, refusal
from sigmagraph.engine.cli.app import app
from sigmagraph.engine.errors import BadValue, MissingFile, ServerRefused, ServerUnreachable, UnknownName
from tests.serving import CHECKOUT, Server

WORKFLOW = CHECKOUT / "workflows/txt2img.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(CHECKOUT / "models")
    running = Server(home).start()
    yield running
    running.stop()


def test_a_job_is_followed_to_its_end_and_can_be_followed_again(server: Server) -> None:
    client = sg.Client(server.url)
    job = client.submit(WORKFLOW, {"KSampler.steps": 2, "5.seed": 3})
    events = list(client.events(job))
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert (events[0].kind, events[-1].kind, events[-1].data["state"]) == ("Queued", "Ended", "succeeded")
    assert list(client.events(job, after=3)) == events[3:]
    result = client.result(job).or_raise()
    [image] = result.images
    assert client.download(image).startswith(b"\x89PNG")


def test_workers_are_listed_by_both_clients_and_the_command(server: Server) -> None:
    async def asked() -> dict[str, Any]:
        async with sg.AsyncClient(server.url) as client:
            return await client.workers()

    client = sg.Client(server.url)
    client.run(WORKFLOW, {"KSampler.steps": 1}).or_raise()
    found = client.workers()
    assert asyncio.run(asked()) == found
    (worker,) = found["workers"]
    assert (worker["name"], worker["is_ready"], worker["models"]) == ("worker", True, ["sigmagraph-demo.safetensors"])
    shown = CliRunner().invoke(app, ["workers", server.url], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    row = shown.stdout.splitlines()[1].split()
    assert (row[0], row[1], row[-1]) == ("worker", "here", "sigmagraph-demo.safetensors")
    assert json.loads(CliRunner().invoke(app, ["workers", server.url, "--json"]).stdout) == found


def test_a_cancelled_job_says_so(server: Server) -> None:
    client = sg.Client(server.url)
    job = client.submit(json.loads(WORKFLOW.read_text()), {"KSampler.steps": 10_000})
    for event in client.events(job):
        if event.kind == "NodeProgress":
            client.cancel(job)
    result = client.result(job)
    assert result.status == "cancelled"
    with pytest.raises(ServerRefused, match="the job was cancelled"):
        result.or_raise()


def test_an_uploaded_picture_is_run_and_a_made_one_replayed(server: Server, tmp_path: Path) -> None:
    async def work() -> tuple[str, dict[str, Any], list[str]]:
        async with sg.AsyncClient(server.url) as client:
            made = await client.run(WORKFLOW, {"KSampler.steps": 1})
            picture = tmp_path / 'a "quoted" name.png'
            picture.write_bytes(await client.download(made.images[0]))
            name = await client.upload(picture)
            again = await client.submit(picture)
            kinds = [event.kind async for event in client.events(again)]
            await client.cancel(again)  # it is over: left as it is
            return name, await client.replay(picture), kinds

    name, verdict, kinds = asyncio.run(work())
    assert (server.home / "input" / name).is_file()
    assert verdict["verdict"] == "identical"
    assert kinds[-1] == "Ended"
    shutil.copy(server.home / "input" / name, tmp_path / "copy.png")
    assert sg.Client(server.url).replay(tmp_path / "copy.png", dry_run=True) == {"dry_run": True, "differences": []}


def test_a_refusal_of_another_form_is_still_a_refusal() -> None:
    call = Call("POST", "/prompt")
    for odd in ({"1": "x"}, {"1": {"errors": 3}}, {"1": {"class_type": "K", "errors": [5, {"message": "m"}]}}, ["x"]):
        told = refusal(call, 400, json.dumps({"error": {"message": "no"}, "node_errors": odd}).encode())
        assert str(told).count("no") >= 1
        assert told.status == 400


def test_what_the_server_refuses_is_told_in_its_words(server: Server) -> None:
    client = sg.Client(server.url)
    with pytest.raises(ServerRefused, match=r"(?s)POST /prompt: .*did you mean 'euler'") as refused:
        client.submit(WORKFLOW, {"KSampler.sampler_name": "eulr"})
    assert refused.value.status == 400
    with pytest.raises(UnknownName, match="did you mean 'KSampler'"):
        client.submit(WORKFLOW, {"KSmapler.steps": 1})
    with pytest.raises(MissingFile, match="no such workflow file"):
        client.submit(Path("none.json"))
    with pytest.raises(ServerRefused, match="404|there is no job"):
        list(client.events("none"))


WRONG: list[tuple[Callable[[sg.Client], object], str]] = [
    (lambda _: sg.Client(cast(Any, 3)), "url: 3 .* an address such as"),
    (lambda _: sg.Client("http://a b"), "url: 'http://a b' .* an address"),
    (lambda _: sg.Client("http://127.0.0.1:x"), "url: .* an address"),
    (lambda _: sg.Client("http://"), "url: .* an address"),
    (lambda _: sg.Client(key="a\nb"), "key: .*not shown.* one line of ASCII"),
    (lambda _: sg.Client(key="a\u2192"), "key: .*not shown.* one line of ASCII"),
    (lambda _: sg.Client(timeout_s=-1), "timeout_s: -1 .* above 0"),
    (lambda _: sg.Client(timeout_s=cast(Any, "x")), "timeout_s: 'x' .* a number of seconds"),
    (lambda client: client.submit(cast(Any, None)), "workflow: None .* a file, a document"),
    (lambda client: client.submit(cast(Any, {"1": {1}})), "workflow: .*not JSON serializable.* values that JSON has"),
    (lambda client: client.submit({"1": math.nan}), "workflow: .* values that JSON has"),
    (lambda client: client.submit(WORKFLOW, cast(Any, ["x"])), "changes: .* a mapping"),
    (lambda client: client.submit(WORKFLOW, cast(Any, {3: 1})), "changes: .* a mapping"),
    (lambda client: client.submit(WORKFLOW, {"seed": 1}), "changes: 'seed' .* NODE.INPUT"),
    (lambda client: list(client.events(cast(Any, None))), "job: None .* as `submit` returns it"),
    (lambda client: client.cancel(""), "job: '' .* as `submit` returns it"),
    (lambda client: client.upload(cast(Any, b"x")), "file: 'bytes' .* a path"),
    (lambda client: client.download(cast(Any, "x.png")), "image: 'x.png' .* a result's images"),
]


@pytest.mark.parametrize(("call", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_argument_is_told_before_anything_is_sent(call: Callable[[sg.Client], object], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        call(sg.Client("http://127.0.0.1:9"))


def test_a_client_that_is_not_open_says_how_it_is_opened() -> None:
    with pytest.raises(BadValue, match="async with AsyncClient"):
        asyncio.run(sg.AsyncClient("http://127.0.0.1:9").workers())


class Breaking(BaseHTTPRequestHandler):
    """A log of five entries, two to a connection; the sixth call and later find nobody."""

    asked: list[str] = []  # noqa: RUF012  # one server, one test

    def do_GET(self) -> None:
        self.asked.append(self.headers["Last-Event-ID"])
        after = int(self.headers["Last-Event-ID"])
        self.send_response(200)
        self.end_headers()
        for number in range(after + 1, min(after + 2, 5) + 1):
            kind = "Ended" if number == 5 else "Progress"
            self.wfile.write(f"id: {number}\nevent: {kind}\ndata: {{}}\n\n:\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    Breaking.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Another(BaseHTTPRequestHandler):
    """Some other server: a page for everything, or half of one, or no HTTP at all."""

    def do_GET(self) -> None:
        if self.path == "/workers":
            self.wfile.write(b"220 mail\r\n")
            return
        self.send_response(200)
        self.send_header("Content-Length", "99" if self.path.startswith("/view") else "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Restarting(Breaking):
    """Is away for two calls, as a proxy tells it, between the second entry and the third."""

    def do_GET(self) -> None:
        if self.headers["Last-Event-ID"] == "2" and self.asked.count("2") < 2:
            self.asked.append("2")
            self.send_error(503)
            return
        super().do_GET()


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_what_another_server_answers_is_told_as_that() -> None:
    image = Image("a.png", "", "output")

    async def asked(url: str) -> None:
        async with sg.AsyncClient(url) as client:
            with pytest.raises(ServerRefused, match="not an answer of sigmagraph"):
                await client.submit({})
            with pytest.raises(ServerUnreachable, match="cannot be reached: .*broke off"):
                await client.download(image)
            with pytest.raises(ServerUnreachable):
                await client.workers()

    with answering(Another) as url:
        client = sg.Client(url)
        with pytest.raises(ServerRefused, match="not an answer of sigmagraph"):
            client.submit({})
        with pytest.raises(ServerUnreachable, match="cannot be reached: .*broke off"):
            client.download(image)
        with pytest.raises(ServerUnreachable, match="220 mail"):
            client.workers()
        asyncio.run(asked(url))


def test_a_server_that_starts_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def followed(url: str) -> list[Event]:
        async with sg.AsyncClient(url) as client:
            return [event async for event in client.events("job")]

    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    with answering(Restarting) as url:
        for take in (lambda: list(sg.Client(url).events("job")), lambda: asyncio.run(followed(url))):
            Breaking.asked = Restarting.asked = []
            assert take() == WHOLE
    monkeypatch.setattr(module, "PAUSE_S", 0.5)
    assert sum(vars(module)["_pause"](failures) for failures in range(1, module.RETRIES + 1)) > 30


WHOLE = [Event(number, "Ended" if number == 5 else "Progress", {}) for number in range(1, 6)]


def test_a_stream_that_breaks_is_taken_up_where_it_was(breaking: str) -> None:
    assert list(sg.Client(breaking).events("job")) == WHOLE
    assert Breaking.asked == ["0", "2", "4"]


def test_the_asynchronous_stream_is_taken_up_as_well(breaking: str) -> None:
    async def work() -> list[Event]:
        async with sg.AsyncClient(breaking) as client:
            return [event async for event in client.events("job")]

    assert asyncio.run(work()) == WHOLE
    assert Breaking.asked == ["0", "2", "4"]


def test_a_server_that_is_gone_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    with pytest.raises(ServerUnreachable, match="cannot be reached"):
        list(sg.Client("http://127.0.0.1:9").events("job"))
