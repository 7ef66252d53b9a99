"""`Idempotency-Key` on every route that submits: once, across restarts; another body under the same key is a 409."""

import json
from typing import Any

import pytest
from aiohttp import FormData

from tests.server.conftest import Api, Serving
from tests.server.stubs import picture_graph

KEY = {"Idempotency-Key": "k"}


def form(color: int) -> FormData:
    """A form as a browser writes it: its boundary is another each time."""
    data = FormData(default_to_multipart=True)
    data.add_field("file", json.dumps(picture_graph(color)).encode(), filename="a.json")
    data.add_field("wait_s", "0")
    return data


WAYS: dict[str, Any] = {
    "/prompt": lambda color: json.dumps({"prompt": picture_graph(color)}).encode(),
    "/replay": lambda color: json.dumps({"workflow": picture_graph(color), "wait_s": 0}).encode(),
    "/replay?as=form": form,
    "/workflows/flat/run": lambda color: json.dumps({"set": {"5.color": color}}).encode(),
}


async def sent(api: Api, path: str, color: int) -> tuple[int, str | None]:
    """The status, and the job that was made or found."""
    response = await api.client.post(path, data=WAYS[path](color), headers=KEY)
    body = await response.json()
    return response.status, body.get("prompt_id") or body.get("job_id")


@pytest.mark.parametrize("path", WAYS)
async def test_a_key_submits_once_and_another_body_is_refused(serving: Serving, path: str) -> None:
    async with serving() as api:
        await api.post("/workflows/flat", {"workflow": picture_graph()})
        status, job_id = await sent(api, path, 1)
        assert status in (200, 202)
        assert job_id is not None
        assert (await sent(api, path, 1))[1] == job_id
        assert (await sent(api, path, 2))[0] == 409
    async with serving() as api:
        assert (await sent(api, path, 1))[1] == job_id
        assert (await sent(api, path, 2))[0] == 409
