"""A full disk, a locked database, folders that cannot be written: the answer names the thing, the server goes on."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph


async def writer(api: Api, pragma: str) -> None:
    """Set something on the connection that writes."""

    def work(tx: Any) -> None:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx.connection.exec_driver_sql(f"PRAGMA {pragma.format(pages=pages)}")

    await api.jobs.store.database.write(work)


def replaced_by_a_file(folder: Path) -> None:
    """A folder that nothing can be written into, whoever writes; permissions say nothing to root."""
    folder.rmdir()
    folder.write_text("in the way")


async def test_a_full_disk_refuses_new_prompts_with_the_reason_and_keeps_what_was_accepted(serving: Serving) -> None:
    async with serving() as api:
        await api.jobs.pause()
        accepted = await api.queue(picture_graph())
        await writer(api, "max_page_count = {pages}")
        graph = picture_graph() | {"8": {"class_type": "Text", "inputs": {"value": "x" * 100_000}}}
        response = await api.post("/prompt", {"prompt": graph})
        assert response.status == 503
        assert "jobs.sqlite: database or disk is full" in (await response.json())["error"]["message"]
        assert (await api.json("/health"))["status"] == "ok"
        assert [item[1] for item in (await api.json("/queue"))["queue_pending"]] == [accepted]
        await writer(api, "max_page_count = 1000000000")
        await api.jobs.resume()
        assert (await api.ended(accepted))["status"]["completed"] is True


async def test_a_locked_database_refuses_after_its_time_and_reading_goes_on(serving: Serving) -> None:
    async with serving() as api:
        done = await api.queue(picture_graph())
        await api.ended(done)
        await writer(api, "busy_timeout = 50")
        with closing(sqlite3.connect(api.root / "jobs.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            response = await api.post("/prompt", {"prompt": picture_graph(1)})
            assert response.status == 503
            assert "jobs.sqlite: database is locked" in (await response.json())["error"]["message"]
            assert list(await api.json("/history")) == [done]
            other.execute("ROLLBACK")
        assert (await api.ended(await api.queue(picture_graph(1))))["status"]["completed"] is True


async def test_an_output_folder_that_cannot_be_written_fails_the_job_and_is_named(serving: Serving) -> None:
    async with serving() as api:
        replaced_by_a_file(api.root / "output")
        entry = await api.ended(await api.queue(picture_graph()))
        kind, error = entry["status"]["messages"][-1]
        assert kind == "execution_error"
        assert (error["node_id"], error["node_type"]) == ("9", "SaveImage")
        assert "output" in error["exception_message"]
        (api.root / "output").unlink()
        assert (await api.ended(await api.queue(picture_graph())))["status"]["completed"] is True


async def test_a_folder_of_uploads_or_saved_files_that_cannot_be_written_is_named(serving: Serving) -> None:
    async with serving() as api:
        for name in ("input", "user"):
            replaced_by_a_file(api.root / name)
        form = aiohttp.FormData()
        form.add_field("image", b"a", filename="a.png")
        for response in (
            await api.client.post("/upload/image", data=form),
            await api.post("/userdata/workflows%2Fa.json", {}),
            await api.post("/settings/a", 1),
        ):
            assert response.status == 507, response.url
            assert "cannot be" in (await response.json())["error"]["message"]
        assert (await api.get("/health")).status == 200


async def test_a_database_in_trouble_for_a_while_loses_no_event_of_a_running_job(serving: Serving) -> None:
    graph = {"1": {"class_type": "Slow", "inputs": {"seconds": 0.4, "steps": 100, "turn": 0}}}
    graph["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    async with serving() as api:
        running = await api.queue(graph)
        await api.running(running)
        await writer(api, "busy_timeout = 20")
        with closing(sqlite3.connect(api.root / "jobs.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.3)
            other.execute("ROLLBACK")
        assert (await api.ended(running))["status"]["completed"] is True
        job = await api.jobs.get(running)
        events = await api.jobs.events(running, limit=1000)
        assert [event.number for event in events] == list(range(1, job.events + 1))
        assert sum(type(event.body).__name__ == "NodeProgress" for event in events) == 100
