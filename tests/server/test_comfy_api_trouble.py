"""Comfy API v2 when many ask at once, lists change under their readers, and what comes is odd."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blake3 import blake3
from PIL import Image

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.node import node
from sigmagraph.engine.graph.results import Expansion
from sigmagraph.engine.jobs.events import JobEvent, Started
from sigmagraph.engine.jobs.job import Job, MadeFile, State
from sigmagraph.engine.server import sse
from sigmagraph.engine.server.comfy_api import events as events_module
from sigmagraph.engine.server.comfy_api.outputs import Outputs
from tests.server import stubs
from tests.server.conftest import Serving, is_end
from tests.server.stubs import Pixels, picture_graph, png, slow_graph
from tests.server.test_comfy_api import ASSETS, JOBS, code, ended, frames, submitted, upload

NO_NAME = "WzEuNSwgIlx1ZDgwMCJd"
"""A cursor at the job of half a character."""


async def test_many_references_at_once_leave_threads_for_looking(serving: Serving) -> None:
    """Each is looked for among files; more at once than there are threads once waited for each other for ever."""
    graph: dict[str, Any] = picture_graph()
    info = {"hash": "blake3:" + "ab" * 32}
    graph["5"] = {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": info}}}
    async with serving() as api:
        async with asyncio.timeout(20):
            many = await asyncio.gather(*(api.post(JOBS, {"workflow": graph}) for _ in range(60)))
        assert {response.status for response in many} <= {422, 503}
        assert {await code(response) for response in many} <= {"missing_asset", "not_accepting"}
        assert await api.json(JOBS) == {"jobs": [], "truncated": False}


async def test_pages_fit_together_while_jobs_come_and_go(serving: Serving) -> None:
    async with serving() as api:
        await api.jobs.pause()
        ids = [(await submitted(api, picture_graph(number)))["id"] for number in range(6)]
        first = await api.json(f"{JOBS}?limit=2&status=queued")
        await submitted(api, picture_graph(6))
        for gone in ids[4:]:
            await api.post(f"{JOBS}/{gone}/cancel")
        await api.jobs.delete(ids[4])  # the very one that the page ended with
        seen, page = [job["id"] for job in first["jobs"]], first
        while page["truncated"]:
            page = await api.json(f"{JOBS}?limit=1&status=queued&cursor={page['next_cursor']}")
            seen += [job["id"] for job in page["jobs"]]
        assert seen == ids[::-1]
        for wrong in ("-1", "7", "e30", "WzEsMl0", "W05hTiwiYSJd", "x" * 5000, "é", NO_NAME):
            assert await code(await api.get(f"{JOBS}?cursor={wrong}")) == "invalid_request"


async def test_a_list_by_state_holds_jobs_of_that_state_alone(serving: Serving) -> None:
    """One that was told to stop is `canceling`, and no longer `running`."""
    async with serving(slots=2) as api:
        going = (await submitted(api, slow_graph()))["id"]
        await api.running(going)
        assert (await api.json(f"{JOBS}?status=canceling"))["jobs"] == []
        assert [job["id"] for job in (await api.json(f"{JOBS}?status=running"))["jobs"]] == [going]


async def test_half_a_character_in_what_a_job_shows_spoils_no_list(serving: Serving) -> None:
    """Its length was counted in UTF-8, which has no form for it: job and list were a 500 as long as it was kept."""
    graph = {
        "7": {"class_type": "Text", "inputs": {"value": "\ud800 ", "flag": True, "factor": 0.5}},
        "8": {"class_type": "ShowText", "inputs": {"text": ["7", 0]}},
    }
    async with serving() as api, api.socket("c") as page:
        job = await submitted(api, graph)
        await api.queue(graph | {"9": graph["8"]}, client_id="c")
        told = await page.until(is_end)
        assert sum(message["type"] == "executed" for message in told if isinstance(message, dict)) == 2
        [output] = (await ended(api, job["id"]))["outputs"]
        content = await (await api.get(f"{ASSETS}/{output['id']}/content")).read()
        assert (content, output["size_bytes"]) == (b"? True0.5", 9)
        assert [line["id"] for line in (await api.json(JOBS))["jobs"]][-1] == job["id"]
        events = frames(await (await api.get(f"{JOBS}/{job['id']}/events")).text())
        assert events[-1][2]["status"] == "succeeded"


async def test_an_answer_that_fails_after_it_began_is_cut_off(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader hears of it at once; it waited for the rest as long as it had patience."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("no frame")

    async with serving() as api:
        job = await submitted(api)
        await ended(api, job["id"])
        monkeypatch.setattr(sse, "frame", fails)
        monkeypatch.setattr(events_module, "_frame", fails)
        for path in (f"/jobs/{job['id']}/events", f"{JOBS}/{job['id']}/events"):
            async with asyncio.timeout(5):
                with pytest.raises(aiohttp.ClientError):
                    await (await api.get(path)).read()
        assert (await api.json(f"{JOBS}/{job['id']}"))["status"] == "succeeded"


@node("SaveTwice", category="test", outputs=("IMAGE",))
def save_twice(*, images: Pixels) -> Any:
    """Puts a picture that is saved twice in its place."""
    made = {"made": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": 7}}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["made", 0], "filename_prefix": "twice"}}
    return Expansion(made | {"one": save, "two": save}, (["made", 0],))


async def test_outputs_of_nodes_that_a_node_made_have_the_ids_of_the_record(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stubs.NODES, "SaveTwice", save_twice)
    graph = picture_graph()
    graph["7"] = {"class_type": "SaveTwice", "inputs": {"images": ["5", 0]}}
    graph["9"]["inputs"]["images"] = ["7", 0]
    async with serving() as api:
        job = await submitted(api, graph)
        told = frames(await (await api.get(f"{JOBS}/{job['id']}/events")).text())
        outputs = [data["id"] for _, name, data in told if name == "output"]
        assert sorted(outputs) == sorted(output["id"] for output in (await ended(api, job["id"]))["outputs"])
        assert len(set(outputs)) == 3
        for asset_id in outputs:
            assert (await api.get(f"{ASSETS}/{asset_id}/content")).status == 200


async def test_a_content_that_is_gone_or_another_is_taken_again(serving: Serving) -> None:
    """People clean their input folder, and write over its files."""
    data = png(Image.new("RGB", (4, 4), "red"))
    digest = "blake3:" + blake3(data).hexdigest()
    async with serving() as api:
        ids = []
        for spoil in (Path.unlink, lambda path: path.write_bytes(bytes(len(data))), None):
            made = await api.post(ASSETS, data=upload(data))
            asset = await made.json()
            assert (made.status, asset["created_new"]) == (201, True)
            assert (await api.client.head(f"{ASSETS}/by-hash/{digest}")).status == 200
            ids.append(asset["id"])
            if spoil is not None:
                [path] = (api.root / "input/assets").iterdir()
                spoil(path)
                if path.exists():
                    os.utime(path, (time.time() + 9, time.time() + 9))  # later, whatever the clock of the disk shows
                assert (await api.client.head(f"{ASSETS}/by-hash/{digest}")).status == 404
        for asset_id in ids:  # the older records name the same file
            assert await (await api.get(f"{ASSETS}/{asset_id}/content")).read() == data


async def test_events_that_a_reader_is_slow_to_take_stay_in_the_store() -> None:
    taken = 0

    class Talkative:
        """Jobs of which there is much to hear."""

        def listen(self, listener: Any) -> Any:
            return lambda: None

        async def follow(self, job_id: str, owner: str) -> AsyncIterator[JobEvent]:
            nonlocal taken
            for number in range(1, 100_000):
                taken = number
                yield JobEvent(job_id, owner, number, 0.0, Started(1, "w"))

    jobs: Any = Talkative()
    stream = events_module._merged(jobs, Job("j", "ann", State.RUNNING, 1.0, 0, 1, 0.0))
    assert isinstance(await anext(stream), JobEvent)
    await asyncio.sleep(0.01)
    assert taken <= 2 * events_module.MOST_WAITING + 2
    await stream.aclose()


async def test_files_that_were_written_anew_are_let_go(tmp_path: Path) -> None:
    class Busy:
        """Jobs that write one file again and again."""

        async def files_made(self, owner: str, after: int, limit: int) -> list[MadeFile]:
            return [MadeFile(after + 1, "j", 0.0, "9", "output", "", "x.png")]

    (tmp_path / "x.png").write_bytes(b"x")
    busy: Any = Busy()
    outputs = Outputs(busy, lambda owner: Folders(*[tmp_path] * 4))
    for _ in range(200):
        assert len(await outputs.all("ann")) == 1
    known = outputs._known("ann")
    assert len(known.unread) < 100
    assert await outputs.by_hash("ann", blake3(b"x").hexdigest()) is not None
