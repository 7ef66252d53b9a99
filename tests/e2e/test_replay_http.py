"""Replay over HTTP with the real nodes and the tiny checkpoint, in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer

from sigmagraph.engine.compose.owners import folders_of
from sigmagraph.engine.compose.worker import build
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.jobs.settings import JobSettings, StoreSettings
from sigmagraph.engine.jobs.workers.inprocess import InProcessWorker
from sigmagraph.engine.server.app import ServerParts, make_app
from sigmagraph.engine.server.settings import Settings
from tests.server.known_keys import NoKeys

Graphs = Callable[..., dict[str, Any]]
Client = TestClient[Any, Any]


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Client]:
    for name in ("output", "temp", "user"):
        (home / name).mkdir(exist_ok=True)
    places = {name: str(home / name) for name in ("models", "input", "output", "temp")}
    folders = folders_of(Folders(*(Path(path) for path in places.values())))
    store = StoreSettings(f"sqlite:///{home}/jobs.sqlite", survives_power_cut=False)
    jobs = JobService(JobSettings(store=store), [InProcessWorker(build(places))], folders)
    parts = ServerParts(jobs, folders, NoKeys(), Settings(), home / "user", home / "workflows", warms_up=False)
    await jobs.start()
    try:
        async with TestClient(TestServer(make_app(parts))) as client:
            yield client
    finally:
        await jobs.stop(5.0)


async def made(client: Client, home: Path, graph: dict[str, Any]) -> Path:
    """Run a graph; its picture."""
    answer = await (await client.post("/prompt", json={"prompt": graph})).json()
    for _ in range(600):
        history = await (await client.get(f"/history/{answer['prompt_id']}")).json()
        if answer["prompt_id"] in history:
            [picture] = history[answer["prompt_id"]]["outputs"]["7"]["images"]
            return home / "output" / picture["filename"]
        await asyncio.sleep(0.05)
    raise AssertionError("the job did not end")


def on_a_server(home: Path, test: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving(home) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(run(), 120))


def test_a_picture_replays_in_every_way_of_sending_it(home: Path, txt2img: Graphs) -> None:
    async def test(client: Client) -> None:
        picture = await made(client, home, txt2img())
        form = FormData()
        form.add_field("file", picture.read_bytes(), filename="made.png", content_type="image/png")
        form.add_field("wait_s", "60")
        ways: tuple[dict[str, Any], ...] = (
            {"data": picture.read_bytes(), "headers": {"Content-Type": "image/png"}},
            {"data": form},
            {"json": {"image": {"filename": picture.name, "subfolder": "", "type": "output"}}},
        )
        for way in ways:
            response = await client.post("/replay", **way)
            answer = await response.json()
            assert response.status == 200, answer
            assert answer["verdict"] == "identical"
            assert answer["differences"] == []
            assert {node["outcome"] for node in answer["nodes"].values()} <= {"executed", "memory"}
            assert (home / "output" / answer["image"]["filename"]).read_bytes() == picture.read_bytes()

    on_a_server(home, test)


def test_a_change_is_named_before_and_after_running(home: Path, txt2img: Graphs) -> None:
    async def test(client: Client) -> None:
        picture = await made(client, home, txt2img())
        body = {"image": {"filename": picture.name}, "set": {"KSampler.seed": 9, "Prompt.text": "a blue square"}}
        dry = await (await client.post("/replay", json=body | {"dry_run": True})).json()
        fields = ["graph.2 (CLIPTextEncode).text", "graph.5 (KSampler).seed"]
        assert [difference["field"] for difference in dry["differences"]] == fields
        answer = await (await client.post("/replay", json=body)).json()
        assert answer["verdict"] == "different"
        assert answer["max_abs"] > 0
        assert [difference["field"] for difference in answer["differences"]] == fields
        later = await (await client.get(f"/replay/{answer['job_id']}")).json()
        assert later == answer

    on_a_server(home, test)


def test_who_does_not_wait_is_told_where_to_ask(home: Path, txt2img: Graphs) -> None:
    async def test(client: Client) -> None:
        picture = await made(client, home, txt2img())
        await client.post("/free", json={"free_memory": True})
        response = await client.post("/replay?wait_s=0", data=picture.read_bytes())
        answer = await response.json()
        assert response.status == 202
        for _ in range(600):
            response = await client.get(answer["status"])
            if response.status == 200:
                break
            await asyncio.sleep(0.05)
        assert (await response.json())["verdict"] == "identical"

    on_a_server(home, test)


def test_documents_stored_names_and_jobs_run_too(home: Path, txt2img: Graphs) -> None:
    async def test(client: Client) -> None:
        saved = await client.post("/workflows/mine", json={"workflow": txt2img(), "parameters": {"seed": "5.seed"}})
        assert saved.status == 201
        drawing = await (await client.get("/workflows/mine?form=editor")).json()
        for body in ({"workflow": drawing}, {"name": "mine", "parameters": {"seed": 3}}, {"workflow": txt2img()}):
            answer = await (await client.post("/replay", json=body)).json()
            assert answer["verdict"] == "nothing to compare", answer
        again = await (await client.post("/replay", json={"job_id": answer["job_id"]})).json()
        assert again["state"] == "succeeded"

    on_a_server(home, test)


def test_what_cannot_run_is_refused_with_every_reason(home: Path, txt2img: Graphs) -> None:
    async def test(client: Client) -> None:
        unknown = txt2img()
        unknown["5"]["class_type"], unknown["6"]["class_type"] = "KSampleer", "Nothing"
        bodies: tuple[tuple[dict[str, Any], str], ...] = (
            ({"json": {"workflow": unknown}}, "KSampleer"),
            ({"json": {"workflow": unknown}}, "Nothing"),
            ({"json": {}}, "nothing to run"),
            ({"json": {"image": {"filename": "../../secret"}}}, "leads out of"),
            ({"json": {"workflow": txt2img(), "wait_s": "soon"}}, "wait_s"),
            ({"json": {"workflow": txt2img(), "dry_run": 7}}, "dry_run"),
            ({"json": {"name": "absent"}}, "no stored workflow"),
            ({"data": b"\x89PNG\r\n\x1a\n" + b"\0" * 40}, "PNG"),
            ({"data": b"not json"}, "JSON"),
        )
        for way, message in bodies:
            response = await client.post("/replay", **way)
            assert response.status in (400, 403, 404), await response.text()
            assert message in json.dumps(await response.json()), message

    on_a_server(home, test)
