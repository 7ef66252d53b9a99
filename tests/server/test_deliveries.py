"""A run's webhook, as its owner sees it: every try is in the log of deliveries."""

import asyncio
import base64
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sigmagraph.engine.server.webhook_client import poster, webhook_body
from tests.server.conftest import Serving
from tests.server.stubs import picture_graph

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
WAYS = {"/workflows/flat/run": {}, "/prompt": {"prompt": picture_graph()}, "/replay": {"name": "flat", "wait_s": 0}}


@pytest.mark.parametrize("path", WAYS)
async def test_every_try_is_in_the_log_of_deliveries(serving: Serving, path: str) -> None:
    heard: list[str] = []

    async def hook(request: web.Request) -> web.Response:
        heard.append(request.headers["Webhook-Id"])
        return web.Response(status=500 if len(heard) == 1 else 204)

    app = web.Application()
    app.add_routes([web.post("/hook", hook)])
    async with serving() as api, TestServer(app) as receiver, poster(allows_private=True) as post:
        api.jobs.deliver(post, webhook_body)
        await api.post("/workflows/flat", {"workflow": picture_graph()})
        asked = WAYS[path] | {"webhook": {"url": str(receiver.make_url("/hook")), "secret": SECRET}}
        answer = await (await api.post(path, asked)).json()
        job_id = answer.get("job_id") or answer["prompt_id"]
        while not (log := await deliveries(api, job_id)) or log[0]["delivered_at"] is None:
            await asyncio.sleep(0.05)
        [only] = log
        assert heard == [only["id"], only["id"]]
        assert [(attempt["status"], attempt["problem"]) for attempt in only["log"]] == [(500, ""), (204, "")]
        assert (only["attempts"], only["next_at"], only["job_id"]) == (2, None, job_id)
        quiet = await api.queue(picture_graph(2))
        await api.ended(quiet)
        assert await deliveries(api, quiet) == []
        assert (await api.get("/jobs/nowhere/deliveries")).status == 404


@pytest.mark.parametrize(
    "webhook",
    [
        {"url": "ftp://x"},
        {"url": 5},
        "nowhere",
        {"url": "http://x", "secret": 5},
        {"url": "http://x", "secret": "plain"},
    ],
)
async def test_a_webhook_that_is_none_is_refused_by_every_route(serving: Serving, webhook: Any) -> None:
    async with serving() as api:
        await api.post("/workflows/flat", {"workflow": picture_graph()})
        for path, body in WAYS.items():
            response = await api.post(path, body | {"webhook": webhook})
            assert response.status == 400, path
            assert "webhook" in await response.text()


async def deliveries(api: Any, job_id: str) -> Any:
    return (await api.json(f"/jobs/{job_id}/deliveries"))["deliveries"]
