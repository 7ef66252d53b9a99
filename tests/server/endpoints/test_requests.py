"""Submit, status, result, cancel, events, outputs, credits, idempotency and webhooks; and whose they are."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from sigmagraph.engine.jobs.job import State
from tests.server.endpoints.conftest import ENDPOINTS, LARGE, SMALL, Served, local, serving

V2 = LARGE.replace("/v1/", "/v2/")
FLOW = LARGE.replace("/v1/", "/workflows/")


async def submitted(served: Served, path: str = V2, headers: Any = None, **fields: Any) -> Any:
    response = await served.client.post(path, json={**SMALL, **fields}, headers=headers)
    body = await response.json()
    assert response.status == 200, body
    return body


async def fetched(served: Served, path: str, headers: Any = None) -> tuple[int, Any]:
    response = await served.client.get(path, headers=headers)
    return response.status, await response.json()


async def test_submit_poll_fetch(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        accepted = await submitted(served)
        root = str(served.client.make_url("")).rstrip("/")
        request_id = accepted["request_id"]
        assert accepted["status"] == "QUEUED"
        assert accepted["poll_url"] == f"{root}/v1/requests/{request_id}"
        assert accepted["status_url"] == f"{root}/v2/requests/{request_id}/status"
        assert accepted["response_url"] == f"{root}/v2/requests/{request_id}"
        await served.jobs.wait(request_id)
        _, state = await fetched(served, local(accepted["status_url"]))
        assert state["status"] == "COMPLETED"
        assert "output" not in state
        _, result = await fetched(served, local(accepted["response_url"]))
        assert {"inference_time", "queue_time", "total_time", "cost", "remaining_credits", "retry_count"} <= set(
            result["metrics"]
        )
        picture = await served.client.get(local(result["output"]))
        assert picture.content_type == "image/jpeg"
        assert (await fetched(served, local(accepted["poll_url"])))[1]["output"] == result["output"]


async def test_a_batch_is_a_list_of_urls(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        accepted = await submitted(served, batch_size=3)
        await served.jobs.wait(accepted["request_id"])
        _, result = await fetched(served, local(accepted["response_url"]))
        assert len(set(result["output"])) == 3


async def test_a_workflow_by_its_id_and_its_poll_url(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        accepted = await submitted(served, FLOW)
        assert URL(accepted["poll_url"]).path == f"/workflows/request/{accepted['request_id']}"
        await served.jobs.wait(accepted["request_id"])
        status, result = await fetched(served, local(accepted["poll_url"]))
        assert (status, result["status"]) == (200, "COMPLETED")
        assert result["output"].startswith("http")


async def test_a_failed_workflow_is_a_200_that_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        accepted = await submitted(served, FLOW, prompt="fail")
        await served.jobs.wait(accepted["request_id"])
        status, result = await fetched(served, local(accepted["poll_url"]))
        assert (status, result["status"]) == (200, "FAILED")
        assert "told to fail" in result["error"]


@pytest.mark.parametrize(("verb", "suffix"), [("POST", "/cancel"), ("PUT", "/cancel")])
async def test_a_cancelled_request_stops_and_costs_nothing(verb: str, suffix: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=1.0)
        accepted = await submitted(served, headers=key, prompt="wait")
        path = f"/v2/requests/{accepted['request_id']}"
        while (await fetched(served, path, key))[1]["status"] != "PROCESSING":
            await asyncio.sleep(0.01)
        assert (await (await served.client.get("/v1/get-user-credits", headers=key)).json())["held"] > 0
        response = await served.client.request(verb, path + suffix, headers=key)
        assert (await response.json())["cancel_requested"] is True
        await asyncio.wait_for(served.jobs.wait(accepted["request_id"]), 10)
        status, body = await fetched(served, path, key)
        assert (status, body["code"]) == (422, "cancelled")
        balance = await (await served.client.get("/v1/get-user-credits", headers=key)).json()
        assert (balance["credits"], balance["held"]) == (1.0, 0.0)


async def test_events_of_a_request_can_be_resumed(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        accepted = await submitted(served)
        await served.jobs.wait(accepted["request_id"])
        everything = await (await served.client.get(local(accepted["events_url"]))).text()
        rest = await (await served.client.get(local(accepted["events_url"]), headers={"Last-Event-ID": "2"})).text()
        assert everything.startswith("id: 1\nevent: Queued\n")
        assert rest == everything[everything.index("id: 3\n") :]
        assert "event: Ended" in rest


async def test_nothing_of_one_key_is_seen_by_another(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        mine, other = await served.key(), await served.key()
        accepted = await submitted(served, headers=mine)
        job = await served.jobs.wait(accepted["request_id"])
        _, result = await fetched(served, f"/v2/requests/{job.id}", mine)
        for path in (f"/v2/requests/{job.id}", f"/v2/requests/{job.id}/events", f"/workflows/request/{job.id}"):
            assert (await served.client.get(path, headers=other)).status == 404
        assert (await served.client.post(f"/v2/requests/{job.id}/cancel", headers=other)).status == 404
        assert (await served.client.get(local(result["output"]))).status == 200
        assert (await served.client.get(local(result["output"]), headers=mine)).status == 200
        assert (await served.client.get(local(result["output"]), headers=other)).status == 404


async def test_output_urls_end_and_cannot_be_made_up(tmp_path: Path) -> None:
    times = [0.0]
    async with serving(tmp_path, clock=lambda: times[0], file_s=100.0) as served:
        key = await served.key()
        accepted = await submitted(served, headers=key)
        job = await served.jobs.wait(accepted["request_id"])
        assert job.ended_at is not None
        times[0] = job.ended_at
        _, result = await fetched(served, f"/v2/requests/{job.id}", key)
        url = URL(result["output"]).relative()
        assert (await served.client.get(url)).status == 200
        for changed in (
            url.update_query(expires=int(url.query["expires"]) + 1),
            url.update_query(signature="0" * 64),
            url.update_query(signature="é"),
            url.with_query(None),
            url.with_path(url.path.replace("0.jpeg", "1.jpeg")).with_query(url.query),
        ):
            assert (await served.client.get(changed)).status == 404
        times[0] = job.ended_at + 101
        assert (await served.client.get(url)).status == 410
        assert (await served.client.get(url.update_query(signature="0" * 64))).status == 404


async def test_an_output_url_dies_with_its_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key()
        accepted = await submitted(served, headers=key)
        job = await served.jobs.wait(accepted["request_id"])
        _, result = await fetched(served, f"/v2/requests/{job.id}", key)
        await served.jobs.accounts.revoke(job.owner)
        assert (await served.client.get(local(result["output"]))).status == 404


async def test_the_same_idempotency_key_makes_one_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = await served.key(credits=1.0)
        headers = key | {"Idempotency-Key": "once"}
        first = await submitted(served, headers=headers, seed=-1)
        again = await submitted(served, headers=headers, seed=-1)
        assert first["request_id"] == again["request_id"]
        conflict = await served.client.post(V2, json={**SMALL, "steps": 20}, headers=headers)
        assert conflict.status == 409
        assert (await conflict.json())["code"] == "idempotency_conflict"
        blocking = await served.client.post(LARGE, json={**SMALL, "seed": -1}, headers=headers)
        assert blocking.headers["x-request-id"] == first["request_id"]
        (account,) = await served.jobs.accounts.list()
        assert len([entry for entry in await served.jobs.accounts.ledger(account.id) if entry.job_id]) == 1


async def test_a_webhook_address_is_kept_with_the_job_and_checked(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        response = await served.client.post(V2, json=SMALL, headers={"X-Webhook-Url": "ftp://x"})
        assert response.status == 400
        assert "X-Webhook-Url" in (await response.json())["error"]


async def test_credits_without_keys_are_a_404(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        status, body = await fetched(served, "/v1/get-user-credits")
        assert (status, body["error"]) == (404, "No credits found for the user")


async def test_another_protocols_job_is_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        prompt = json.loads((ENDPOINTS / "demo.json").read_text())
        prompt["1"]["inputs"]["ckpt_name"] = "sd3.5_large.safetensors"
        response = await served.client.post("/prompt", json={"prompt": prompt})
        job_id = (await response.json())["prompt_id"]
        assert (await served.jobs.wait(job_id)).state is State.SUCCEEDED
        assert (await fetched(served, f"/v2/requests/{job_id}"))[0] == 404


async def test_fifty_calls_at_once_with_credit_for_twenty_make_twenty_images(tmp_path: Path) -> None:
    price = 0.0025 * 1000 * 1008 / 1e6 * 10
    async with serving(tmp_path) as served:
        key = await served.key(credits=round(20.5 * price, 6))
        fields = {**SMALL, "width": 1008, "height": 1000, "steps": 10}

        async def one(seed: int) -> tuple[int, str]:
            response = await served.client.post(LARGE, json={**fields, "seed": seed}, headers=key)
            body = await response.json()
            return response.status, body.get("error", "")

        answers = await asyncio.gather(*(one(seed) for seed in range(50)))
        assert sorted(status for status, _ in answers) == [200] * 20 + [406] * 30
        assert all(error.startswith("Insufficient credits") for status, error in answers if status == 406)
        (account,) = await served.jobs.accounts.list()
        ledger = await served.jobs.accounts.ledger(account.id, limit=1000)
        charges = [entry for entry in ledger if entry.job_id]
        assert len({charge.job_id for charge in charges}) == 20
        assert account.credits == sum(entry.amount for entry in ledger)
        assert account.held == 0
        assert account.spent == -sum(charge.amount for charge in charges)
