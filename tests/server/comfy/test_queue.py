"""Queue, history, stopping, and the newer jobs endpoint."""

import json
from typing import Any

import pytest

from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph, slow_graph


async def busy(api: Api) -> tuple[str, str, str]:
    """One job that runs, two that wait."""
    running = await api.queue(slow_graph(), client_id="c")
    await api.running(running)
    return running, await api.queue(slow_graph(1)), await api.queue(picture_graph())


async def test_the_queue_shows_what_runs_and_waits_as_five_tuples(serving: Serving) -> None:
    async with serving() as api:
        running, second, third = await busy(api)
        queue = await api.json("/api/queue")
        [item] = queue["queue_running"]
        assert item[1:3] == [running, slow_graph()]
        assert item[3]["client_id"] == "c"
        assert item[4] == ["2"]
        assert sorted(item[1] for item in queue["queue_pending"]) == sorted([second, third])


async def test_deleting_removes_waiting_jobs_and_leaves_running_ones(serving: Serving) -> None:
    async with serving() as api:
        running, second, third = await busy(api)
        response = await api.post("/queue", {"delete": [running, second, "unknown"]})
        assert (response.status, await response.read()) == (200, b"")
        queue = await api.json("/queue")
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert [item[1] for item in queue["queue_pending"]] == [third]
        await api.post("/queue", {"clear": True})
        assert (await api.json("/queue"))["queue_pending"] == []
        assert (await api.json("/prompt"))["exec_info"]["queue_remaining"] == 1


@pytest.mark.parametrize("body", [None, {}, "id"])
async def test_interrupting_stops_what_runs(serving: Serving, body: Any) -> None:
    async with serving() as api:
        running, second, _ = await busy(api)
        other = await api.post("/interrupt", {"prompt_id": second})
        assert other.status == 200
        assert (await api.json(f"/history/{running}")) == {}
        await api.post("/interrupt", {"prompt_id": running} if body == "id" else body)
        entry = await api.ended(running)
        kind, told = entry["status"]["messages"][-1]
        assert (kind, told["node_id"], told["node_type"]) == ("execution_interrupted", "1", "Slow")
        assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
        listed = {job["id"]: job["status"] for job in (await api.json("/api/jobs"))["jobs"]}
        assert listed[running] == "cancelled"
        assert "execution_error" not in await api.json(f"/api/jobs/{running}")


@pytest.mark.parametrize("how", ["delete", "clear", "cancel"])
async def test_what_was_deleted_while_it_waited_is_gone(serving: Serving, how: str) -> None:
    """From what ComfyUI's page asks; our own list keeps it."""
    async with serving() as api:
        running, second, third = await busy(api)
        if how == "cancel":
            await api.post("/api/jobs/cancel", {"job_ids": [second, third]})
        else:
            await api.post("/queue", {"delete": [second, third]} if how == "delete" else {"clear": True})
        assert (await api.json("/queue"))["queue_pending"] == []
        assert await api.json("/history") == {}
        assert await api.json(f"/history/{second}") == {}
        assert [job["id"] for job in (await api.json("/api/jobs"))["jobs"]] == [running]
        assert (await api.json("/api/jobs?status=cancelled"))["pagination"]["total"] == 0
        kept = {job["id"]: job["status"] for job in (await api.json("/jobs"))["jobs"]}
        assert kept == {running: "in_progress", second: "cancelled", third: "cancelled"}


async def test_an_interrupt_while_idle_does_not_touch_the_next_prompt(serving: Serving) -> None:
    async with serving() as api:
        await api.post("/api/interrupt")
        entry = await api.ended(await api.queue(picture_graph()))
        assert entry["status"]["status_str"] == "success"


async def test_history_is_in_order_of_completion_and_can_be_read_in_parts(serving: Serving) -> None:
    async with serving() as api:
        ids = [await api.queue(picture_graph(i)) for i in range(4)]
        for job_id in ids:
            await api.ended(job_id)
        assert list(await api.json("/history")) == ids
        assert list(await api.json("/history?max_items=2")) == ids[2:]
        assert list(await api.json("/history?max_items=2&offset=1")) == ids[1:3]
        assert list(await api.json("/history?max_items=0")) == []
        assert (await api.get("/history?max_items=many")).status == 400
        assert await api.json("/history/unknown") == {}
        await api.post("/history", {"delete": [ids[0], "unknown"]})
        assert list(await api.json("/history")) == ids[1:]
        await api.post("/history", {"clear": True})
        assert await api.json("/history") == {}


async def test_history_survives_a_restart(serving: Serving) -> None:
    async with serving() as api:
        done = await api.queue(picture_graph())
        await api.ended(done)
    async with serving() as again:
        assert list(await again.json("/history")) == [done]


async def test_what_waited_when_the_server_stopped_runs_when_it_comes_back(serving: Serving) -> None:
    async with serving() as api:
        await api.jobs.pause()
        waiting = await api.queue(picture_graph())
    async with serving() as again:
        await again.jobs.resume()
        assert (await again.ended(waiting))["status"]["completed"] is True


async def test_free_is_accepted_at_once(serving: Serving) -> None:
    async with serving() as api:
        response = await api.post("/free", {"unload_models": True, "free_memory": True})
        assert (response.status, await response.read()) == (200, b"")


async def test_the_jobs_endpoint_lists_newest_first_with_pages(serving: Serving) -> None:
    async with serving() as api:
        drawing = {"extra_pnginfo": {"workflow": {"id": "w"}}}
        ids = [await api.queue(picture_graph(i), extra_data=drawing if i else {}) for i in range(3)]
        for job_id in ids:
            await api.ended(job_id)
        page = await api.json("/api/jobs?status=completed,failed,cancelled&limit=2&offset=0")
        assert page["pagination"] == {"offset": 0, "limit": 2, "total": 3, "has_more": True}
        assert [job["id"] for job in page["jobs"]] == [ids[2], ids[1]]
        job = page["jobs"][0]
        assert job["status"] == "completed"
        assert job["create_time"] <= job["execution_start_time"] <= job["execution_end_time"]
        assert (job["outputs_count"], job["previewable_outputs_count"], job["workflow_id"]) == (1, 1, "w")
        assert job["preview_output"]["filename"].startswith("x_")
        assert (job["preview_output"]["nodeId"], job["preview_output"]["mediaType"]) == ("9", "images")
        oldest = await api.json("/jobs?sort_order=asc&limit=1")
        assert oldest["jobs"][0]["id"] == ids[0]
        assert len((await api.json("/jobs?workflow_id=w"))["jobs"]) == 2
        by_time = await api.json("/jobs?sort_by=execution_duration")
        times = [job["execution_end_time"] - job["execution_start_time"] for job in by_time["jobs"]]
        assert times == sorted(times, reverse=True)


MANY = "9" * 4500  # more digits than Python reads
BAD_QUERIES = ["status=odd", "limit=-1", "limit=x", "offset=-2", "sort_by=name", "sort_order=up"]


@pytest.mark.parametrize("query", [*BAD_QUERIES, f"limit={MANY}", f"offset={MANY}"])
async def test_a_bad_query_of_the_jobs_endpoint_is_named(serving: Serving, query: str) -> None:
    async with serving() as api:
        response = await api.get(f"/api/jobs?{query}")
        assert response.status == 400
        assert list(await response.json()) == ["error"]


async def test_one_job_shows_what_it_was_asked_and_what_it_gave(serving: Serving) -> None:
    graph = picture_graph(**{"9": {"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "now"}}})
    async with serving() as api:
        good, bad = await api.queue(picture_graph()), await api.queue(graph)
        await api.ended(good)
        await api.ended(bad)
        detail = await api.json(f"/api/jobs/{good}")
        assert detail["workflow"]["prompt"] == picture_graph()
        assert detail["outputs"]["9"]["images"]
        assert detail["execution_status"]["status_str"] == "success"
        failed = await api.json(f"/api/jobs/{bad}")
        assert failed["status"] == "failed"
        assert failed["execution_error"]["node_type"] == "Fail"
        assert failed["execution_error"]["traceback"]
        [listed] = (await api.json("/api/jobs?status=failed"))["jobs"]
        assert listed["execution_error"]["node_id"] == "9"
        assert (await api.get("/api/jobs/unknown")).status == 404


async def test_jobs_are_cancelled_by_id_whatever_their_state(serving: Serving) -> None:
    async with serving() as api:
        running, second, third = await busy(api)
        assert await (await api.post(f"/api/jobs/{second}/cancel")).json() == {"cancelled": True}
        assert await (await api.post("/jobs/cancel", {"job_ids": [running, third, "x"]})).json() == {"cancelled": True}
        await api.ended(running)
        statuses = {job["id"]: job["status"] for job in (await api.json("/jobs"))["jobs"]}
        assert statuses == dict.fromkeys([running, second, third], "cancelled")
        assert (await api.post("/jobs/cancel", {})).status == 400


@pytest.mark.parametrize("length", [10, 300_000])  # one reply, and one in pieces
async def test_odd_values_of_one_job_spoil_no_list(serving: Serving, length: int) -> None:
    """Half a character and a number without end, which JSON has no form for."""
    odd = {"half": "\ud800", "endless": float("inf"), "none": float("nan"), "long": "x" * length}
    async with serving() as api:
        done = await api.queue(picture_graph(), extra_data=odd)
        await api.ended(done)
        await api.jobs.pause()
        await api.queue(picture_graph(1), extra_data=odd)
        for path in ("/queue", "/history", f"/history/{done}", "/jobs", f"/api/jobs/{done}", f"/jobs/{done}/events"):
            text = (await (await api.get(path)).read()).decode()
            assert "NaN" not in text
            assert "Infinity" not in text
        queue = json.loads(await (await api.get("/queue")).read())
        kept = queue["queue_pending"][0][3]
        assert (kept["half"], kept["endless"], kept["none"]) == ("\ud800", None, None)
