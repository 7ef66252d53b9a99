"""Comfy API v2 when many ask at once, lists change under their readers, and what comes is odd."""

import asyncio
from typing import Any

from tests.server.conftest import Serving
from tests.server.stubs import picture_graph
from tests.server.test_comfy_api import JOBS


async def test_many_references_at_once_leave_threads_for_looking(serving: Serving) -> None:
    """Each is looked for among files; more at once than there are threads once waited for each other for ever."""
    graph: dict[str, Any] = picture_graph()
    info = {"hash": "blake3:" + "ab" * 32}
    graph["5"] = {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": info}}}
    async with serving() as api:
        async with asyncio.timeout(20):
            many = await asyncio.gather(*(api.post(JOBS, {"workflow": graph}) for _ in range(60)))
        assert {response.status for response in many} <= {422, 503}
        assert await api.json(JOBS) == {"jobs": [], "truncated": False}
