"""Health, readiness, metrics, server-sent events."""

import asyncio
import json
import logging
from typing import Any

from sigmagraph.engine.errors import NotAccepting
from sigmagraph.engine.jobs.service import JobService
from sigmagraph.engine.server.access.keys import REMEMBERED_S
from sigmagraph.engine.server.monitoring import health
from sigmagraph.engine.server.monitoring.logs import JsonFormatter
from tests.server.conftest import Serving
from tests.server.known_keys import FixedKeys, account
from tests.server.stubs import picture_graph, slow_graph


async def test_health_answers_and_ready_waits_for_the_warm_up(serving: Serving) -> None:
    async with serving() as api:
        assert (await api.json("/health"))["status"] == "ok"
        cold = await api.get("/ready")
        assert cold.status == 503
        assert (await cold.json())["reason"]


async def test_the_warm_up_graph_leaves_no_trace(serving: Serving) -> None:
    async with serving(warms_up=True) as api:
        for _ in range(500):
            if (await api.get("/ready")).status == 200:
                break
        assert (await api.json("/ready")) == {"status": "ready"}
        assert await api.json("/history") == {}
        assert (await api.json("/jobs"))["jobs"] == []


async def test_a_warm_up_that_was_refused_is_tried_again(serving: Serving, monkeypatch: Any) -> None:
    submit, refusals = JobService.submit, [NotAccepting("the queue is full")]

    async def full_at_first(jobs: JobService, submission: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await submit(jobs, submission)

    monkeypatch.setattr(JobService, "submit", full_at_first)
    monkeypatch.setattr(health, "AGAIN_S", 0.01)
    async with serving(warms_up=True) as api, asyncio.timeout(10):
        while (await api.get("/ready")).status != 200:
            await asyncio.sleep(0.01)
    assert not refusals


async def test_workers_are_listed(serving: Serving) -> None:
    async with serving() as api:
        await api.ended(await api.queue(picture_graph()))
        answer = await (await api.get("/workers")).json()
        (worker,) = answer.pop("workers")
        assert answer == {"queued": 0, "running": 0, "trouble": ""}
        told = {name: worker[name] for name in ("name", "machine", "is_ready", "starts", "jobs", "last_error")}
        alone = {"machine": None, "is_ready": True, "starts": 1, "jobs": [], "last_error": ""}
        assert told == {"name": "here", **alone}


async def test_metrics_count_jobs_nodes_and_requests_by_route(serving: Serving) -> None:
    async with serving() as api:
        done = await api.queue(picture_graph())
        await api.ended(done)
        await api.get("/nothing/at/all/1")
        response = await api.get("/metrics")
        text = await response.text()
        assert response.content_type == "text/plain"
        assert 'sigmagraph_jobs_ended_total{state="succeeded"} 1.0' in text
        assert 'sigmagraph_nodes_total{source="executed"} 2.0' in text
        assert 'sigmagraph_http_requests_total{method="GET",route="/history/{id}",status="200"} 1.0' in text
        assert "nothing" not in text
        assert 'sigmagraph_jobs{state="queued"} 0.0' in text
        said = {"sigmagraph_worker_networks": ("loads", 2.0), "sigmagraph_worker_compiled": ("recompiles", 1.0)}
        for name, (what, count) in said.items():
            (line,) = [each for each in text.splitlines() if each.startswith(name) and f'what="{what}"' in each]
            assert line.endswith(f"}} {count}"), line


async def test_what_happens_to_jobs_is_logged_with_the_ids_of_job_and_node(serving: Serving, caplog: Any) -> None:
    graph = picture_graph(**{"9": {"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "now"}}})
    with caplog.at_level(logging.DEBUG, "sigmagraph.jobs"):
        async with serving() as api:
            good, bad = await api.queue(picture_graph()), await api.queue(graph)
            await api.ended(good)
            await api.ended(bad)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if hasattr(record, "job")]
    told = {job: [line for line in lines if line["job"] == job] for job in (good, bad)}
    assert [line["message"] for line in told[good]] == ["job started", "node done", "node done", "job ended"]
    assert [line.get("node") for line in told[good]] == [None, "5", "9", None]
    assert (told[good][0]["attempt"], told[good][-1]["state"]) == (1, "succeeded")
    [failed] = [line for line in told[bad] if line["message"] == "node failed"]
    assert (failed["node"], failed["class_type"], failed["level"]) == ("9", "Fail", "warning")
    assert (told[bad][-1]["level"], told[bad][-1]["error"]) == ("warning", "node 9 (Fail): failed now")


def parsed(text: str) -> list[tuple[int, str, dict[str, object]]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


async def test_a_job_can_be_followed_as_server_sent_events(serving: Serving) -> None:
    async with serving() as api:
        done = await api.queue(picture_graph())
        response = await api.get(f"/api/jobs/{done}/events")
        assert response.content_type == "text/event-stream"
        events = parsed(await response.text())
        assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
        names = [name for _, name, _ in events]
        assert (names[0], names[-1]) == ("Queued", "Ended")
        assert {"Started", "RunStarted", "NodeStarted", "NodeFinished", "RunSucceeded"} < set(names)
        assert events[-1][2]["state"] == "succeeded"
        half = len(events) // 2
        rest = await api.get(f"/jobs/{done}/events", headers={"Last-Event-ID": str(half)})
        assert parsed(await rest.text()) == events[half:]
        for after in ("x", "9" * 4500):
            assert (await api.get(f"/jobs/{done}/events?after={after}")).status == 400
        assert (await api.get("/jobs/unknown/events")).status == 404


async def test_a_reader_of_events_that_goes_away_leaves_the_job_alone(serving: Serving) -> None:
    async with serving() as api:
        running = await api.queue(slow_graph())
        response = await api.get(f"/jobs/{running}/events")
        await response.content.readuntil(b"NodeProgress")
        response.close()
        assert str((await api.jobs.get(running)).state) == "running"


async def test_a_waiting_job_is_moved_among_its_owners_own(serving: Serving) -> None:
    keys = FixedKeys({"a": account("ann"), "b": account("bob"), "r": account("ann", frozenset({"read"}))})
    ann, bob, reader = ({"X-API-Key": name} for name in "abr")
    async with serving(keys=keys, slots=1) as api:
        running = await api.queue(slow_graph(1), headers=ann)
        await api.running(running)
        first, second, third = [await api.queue(slow_graph(n), headers=ann) for n in (2, 3, 4)]

        async def waiting() -> list[str]:
            found = (await api.json("/jobs?status=pending", headers=ann))["jobs"]
            return [job["id"] for job in sorted(found, key=lambda job: float(job["priority"]))]

        async def moved(job_id: str, body: Any, headers: Any = ann) -> int:
            return (await api.post(f"/jobs/{job_id}/place", body, headers=headers)).status

        assert await waiting() == [first, second, third]
        assert await moved(third, {"front": True}) == 200
        assert await waiting() == [third, first, second]
        numbers = {job["id"]: job["priority"] for job in (await api.json("/jobs", headers=ann))["jobs"]}
        assert await moved(second, {"number": (numbers[third] + numbers[first]) / 2}) == 200
        assert await waiting() == [third, second, first]
        for bad in (
            {},
            {"front": False},
            {"front": 1},
            {"front": True, "number": 1},
            {"number": "1"},
            {"number": 1e999},
        ):
            assert await moved(third, bad) == 400, bad
        assert await moved(third, {"number": 10**400}) == 400
        assert await moved(third, {"number": -5}) == 200  # a whole number, as a program writes it
        assert await moved(running, {"front": True}) == 409
        assert await moved("nowhere", {"front": True}) == 404
        assert await moved(third, {"front": True}, bob) == 404
        assert await moved(third, {"front": True}, reader) == 403
        await api.jobs.cancel(second)
        await api.jobs.cancel(running)
        await api.running(third)


async def test_a_move_takes_a_turn_of_the_keys_rate(serving: Serving) -> None:
    async with serving(keys="stored", slots=1) as api:
        key, _ = await api.jobs.accounts.create("ann", requests_per_minute=5.0)
        other, _ = await api.jobs.accounts.create("bob")
        await asyncio.sleep(REMEMBERED_S)
        headers = {"X-API-Key": key}
        await api.jobs.pause()
        waiting = await api.queue(slow_graph(1), headers=headers)
        moves = [(await api.post(f"/jobs/{waiting}/place", {"front": True}, headers=headers)).status for _ in range(6)]
        assert moves == [200] * 4 + [429] * 2
        refused = await api.post(f"/jobs/{waiting}/place", {"front": True}, headers=headers)
        assert int(refused.headers["Retry-After"]) <= 12
        assert (await api.post("/prompt", {"prompt": slow_graph(2)}, headers=headers)).status == 429
        assert (await api.post("/prompt", {"prompt": slow_graph(2)}, headers={"X-API-Key": other})).status == 200
        await api.jobs.cancel_all()
        await api.jobs.resume()


async def test_an_administrator_sees_every_key_and_its_credits_and_nobody_else_does(serving: Serving) -> None:
    async with serving(keys="stored") as api:
        assert await api.json("/keys") == {"keys": []}
        admin, _ = await api.jobs.accounts.create("root", ["admin"])
        own, ann = await api.jobs.accounts.create("ann", credits=2_500_000, requests_per_minute=30.0)
        await asyncio.sleep(REMEMBERED_S)
        found = await api.json("/keys", headers={"X-API-Key": admin})
        assert [row["name"] for row in found["keys"]] == ["root", "ann"]
        assert found["keys"][1] == {
            "id": ann.id, "name": "ann", "hint": ann.hint, "scopes": ["read", "submit"], "endpoints": None,
            "credits": 2.5, "held": 0.0, "spent": 0.0, "requests_per_minute": 30.0, "revoked": False,
        }  # fmt: skip
        assert own not in json.dumps(found)
        assert (await api.get("/keys", headers={"X-API-Key": own})).status == 403
        assert (await api.get("/keys")).status == 401
