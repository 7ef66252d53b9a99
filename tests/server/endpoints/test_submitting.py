"""What every submit route offers beside the original: once only, telling of the end, events that can be resumed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestServer
from standardwebhooks.webhooks import Webhook as Verifier

from sigmagraph.engine.compose.publishing import words
from sigmagraph.engine.jobs.job import JobQuery, State
from sigmagraph.engine.server.context import FOLDERS
from sigmagraph.engine.server.webhook_client import poster
from tests.server.endpoints.conftest import LARGE, SMALL, Served, local, serving

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
V2 = LARGE.replace("/v1/", "/v2/")
FLOW = LARGE.replace("/v1/", "/workflows/")
ONCE = {"Idempotency-Key": "1"}
ROUTES = (LARGE, V2, FLOW)
RUNNING = JobQuery(states=frozenset({State.RUNNING}))
Told = tuple[dict[str, str], bytes]


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, "asyncio.Queue[Told]"]]:
    """A server that keeps what it is told."""
    told: asyncio.Queue[Told] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        told.put_nowait((dict(request.headers), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/done", take)
    async with TestServer(app) as server:
        yield str(server.make_url("/done")), told


async def sent(served: Served, path: str, headers: Any, **fields: Any) -> str:
    """The id of the request that a call made."""
    response = await served.client.post(path, json={**SMALL, **fields}, headers=headers)
    body = await response.json()
    return str(body.get("request_id") or response.headers["x-request-id"])


@pytest.mark.parametrize("path", ROUTES)
async def test_the_end_is_told_signed_and_in_the_words_of_the_status(path: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served, receiver() as (url, told), poster(allows_private=True) as post:
        assert served.client.app is not None
        served.jobs.deliver(post, words(served.published, served.client.app[FOLDERS]))
        key = await served.key()
        headers = key | {"X-Webhook-Url": url, "X-Webhook-Secret": SECRET}
        request_id = await sent(served, path, headers, batch_size=2)
        got, body = await asyncio.wait_for(told.get(), 20)
        whole = Verifier(SECRET).verify(body, got)
        assert (whole["id"], whole["type"]) == (got["Webhook-Id"], "job.succeeded")
        said = whole["data"]
        asked = await (await served.client.get(f"/v2/requests/{request_id}", headers=key)).json()
        del asked["metadata"], asked["metrics"]["remaining_credits"]
        assert said == asked
        assert (await served.client.get(local(said["output"][1]))).content_type == "image/jpeg"
        request_id = await sent(served, path, headers, prompt="fail")
        said = json.loads((await asyncio.wait_for(told.get(), 20))[1])["data"]
        assert (said["request_id"], said["status"]) == (request_id, "FAILED")
        assert "told to fail" in said["error"]
        assert "cost" not in said["metrics"]


@pytest.mark.parametrize("path", ROUTES)
async def test_a_repeated_call_is_the_same_request_charged_once(path: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        headers = await served.key(credits=1.0) | {"Idempotency-Key": "order 17"}
        ids = await asyncio.gather(*(sent(served, path, headers, seed=-1) for _ in range(8)))
        assert len(set(ids)) == 1
        await served.jobs.wait(ids[0])
        (account,) = await served.jobs.accounts.list()
        ledger = await served.jobs.accounts.ledger(account.id)
        assert [entry.job_id for entry in ledger if entry.job_id] == [ids[0]]
        other = await served.client.post(path, json={**SMALL, "steps": 11}, headers=headers)
        assert other.status == 409
        assert (await other.json())["code"] == "idempotency_conflict"


async def test_who_goes_away_gets_the_request_by_its_key_and_pays_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        headers = await served.key(credits=1.0) | ONCE
        await served.jobs.pause()
        calling = asyncio.create_task(served.client.post(LARGE, json=dict(SMALL), headers=headers))
        while not (waiting := (await served.jobs.find(JobQuery())).jobs):
            await asyncio.sleep(0.01)
        calling.cancel()
        await asyncio.wait([calling])
        await served.jobs.resume()
        assert (await served.jobs.wait(waiting[0].id)).state is State.SUCCEEDED
        assert await sent(served, LARGE, headers) == waiting[0].id
        (account,) = await served.jobs.accounts.list()
        ledger = await served.jobs.accounts.ledger(account.id)
        assert [entry.job_id for entry in ledger if entry.job_id] == [waiting[0].id]


async def test_a_key_is_each_callers_own_and_means_one_endpoint(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        mine, yours = await served.key() | ONCE, await served.key() | ONCE
        assert await sent(served, V2, mine) != await sent(served, V2, yours)
        other = await served.client.post(V2.replace("large", "turbo"), json=SMALL, headers=mine)
        assert other.status == 409


@pytest.mark.parametrize("path", ROUTES)
async def test_events_go_on_where_a_cut_reader_was(path: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        calling = asyncio.create_task(sent(served, path, {}, prompt="wait"))
        while not (running := (await served.jobs.find(RUNNING)).jobs):
            await asyncio.sleep(0.01)
        url = f"/v2/requests/{running[0].id}/events"
        response = await served.client.get(url, timeout=ClientTimeout(total=20))
        first = await response.content.readuntil(b"\n\n")
        response.close()
        await served.client.post(f"/v2/requests/{running[0].id}/cancel")
        await calling
        rest = await (await served.client.get(url, headers={"Last-Event-ID": "1"})).text()
        assert first.startswith(b"id: 1\nevent: Queued\n")
        everything = await (await served.client.get(url)).text()
        assert first.decode() + rest == everything
        assert "event: Ended" in rest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Idempotency-Key", "a\tb"),
        ("Idempotency-Key", "x" * 256),
        ("Idempotency-Key", ""),
        ("X-Webhook-Url", "ftp://example.com"),
        ("X-Webhook-Url", "https://exa mple.com"),
        ("X-Webhook-Url", "https://" + "x" * 2048),
        ("X-Webhook-Secret", "x" * 256),
        ("X-Webhook-Secret", "whsec_" + "kept-to-ourselves"),
    ],
)
@pytest.mark.parametrize("path", ROUTES)
async def test_a_wrong_header_is_named_beside_every_wrong_field(
    path: str, name: str, value: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as served:
        response = await served.client.post(path, json={**SMALL, "steps": 9}, headers={name: value})
        body = await response.json()
        assert response.status == 400
        assert [fault["code"] for fault in body["errors"]] == ["bad_header", "out_of_range"]
        assert body["errors"][0]["message"].startswith(f"{name}: ")
        told = body["errors"][0]["value"]
        if name == "X-Webhook-Secret":
            assert told == f"({len(value)} characters, not shown)"
            assert value not in await response.text()
            assert "whsec_ and 24 to 64 random bytes" in body["errors"][0]["message"]
        else:
            assert told == (value if len(value) <= 200 else value[:200] + "…")
