"""Searches read many requests by few readers: they take turns, so that nobody's plain lists wait for them."""

import asyncio
from typing import Any, cast

from aiohttp import web

from sigmagraph.engine.jobs.job import JobQuery, Page
from sigmagraph.engine.server import estimate
from sigmagraph.engine.server.comfy.finding import SEARCHING, found
from sigmagraph.engine.server.context import JOBS, OWNER
from sigmagraph.engine.server.decoding.shares import Shares
from tests.server.conftest import Serving
from tests.server.stubs import picture_graph


class Slow:
    """Jobs that are being looked for until `going` is set."""

    def __init__(self) -> None:
        self.going, self.under_way = asyncio.Event(), list[str]()

    async def find(self, query: JobQuery) -> Page:
        self.under_way.append(query.owner or "")
        if query.text or query.fields or query.with_request:
            await self.going.wait()
        return Page([], 0)


async def test_an_owner_searches_once_at_a_time_and_plain_lists_do_not_wait() -> None:
    jobs = Slow()
    app = {JOBS: jobs, SEARCHING: Shares(2, asyncio.get_running_loop().time)}

    async def asked(owner: str, **query: Any) -> Page:
        request = type("Request", (dict,), {"app": app})({OWNER: owner})
        return await found(cast(web.Request, request), JobQuery(owner, **query))

    kinds: list[dict[str, Any]] = [{"text": "x"}, {"fields": {"model": "x"}}, {"with_request": True}]
    searches = [asyncio.create_task(asked("ann", **kinds[at % 3])) for at in range(9)]
    await asyncio.sleep(0)
    other = asyncio.create_task(asked("bob", text="x"))
    await asyncio.sleep(0.01)
    assert jobs.under_way == ["ann", "bob"]
    await asyncio.wait_for(asked("cyd"), 1)
    jobs.going.set()
    await asyncio.gather(*searches, other)
    assert jobs.under_way.count("ann") == 9


async def test_a_guess_of_time_reads_no_request_that_is_very_large(serving: Serving) -> None:
    """Forty-eight requests of 3 MB took 340 MB of the front for each `POST /estimate`."""
    graph = picture_graph()
    async with serving() as api:
        for size in (10, estimate.LONGEST):
            await api.ended(await api.queue(graph, extra_data={"note": "x" * size}))
        async with await api.post("/estimate", {"workflow": graph}) as response:
            assert (response.status, (await response.json())["runs"]) == (200, 1)
        async with await api.get("/jobs?text=" + "x" * 256) as response:
            assert response.status == 400
