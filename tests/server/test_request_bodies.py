"""Bodies are bounded while they come and while they unpack, before a key is checked and after."""

import ast
import asyncio
import gc
import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from itertools import product
from pathlib import Path

import pytest

from sigmagraph.engine.server.transport.body_budget import BUDGET
from sigmagraph.engine.server.transport.request_bodies import CALL, LOGIN, PACKINGS, unpacked
from tests.server.conftest import Serving
from tests.server.endpoints.conftest import LARGE
from tests.server.endpoints.conftest import serving as endpoints
from tests.server.stubs import picture_graph
from tests.server.test_security import KEYS, key

BOMB = gzip.compress(bytes(90_000_000), 9)
GZIP = {"Content-Encoding": "gzip"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SERVER = Path(__file__).resolve().parents[2] / "engine" / "server"


def raw_deflate(data: bytes) -> bytes:
    box = zlib.compressobj(wbits=-15)
    return box.compress(data) + box.flush()


async def test_a_packed_body_costs_no_more_than_its_route_takes_before_any_key_is_checked(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        tracemalloc.start()
        try:
            for path, kind in product(("/login", "/prompt", "/upload/image", "/logout", "/nowhere"), (FORM, {})):
                response = await api.post(path, data=BOMB, headers=GZIP | kind)
                assert response.status in (401, 413), path
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()


async def test_a_call_of_a_published_workflow_unpacks_its_own_limit_and_no_more(tmp_path: Path) -> None:
    async with endpoints(tmp_path) as served:
        headers = {**await served.key(), **GZIP, "Content-Type": "application/json"}
        tracemalloc.start()
        try:
            response = await served.client.post(LARGE, data=BOMB, headers=headers)
            assert (response.status, (await response.json())["code"]) == (413, "too_large")
            assert tracemalloc.get_traced_memory()[1] < 4 * CALL
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_order_larger_than_orders_are_is_refused(serving: Serving, chunked: bool) -> None:
    async with serving() as api:
        body = json.dumps({"delete": ["x" * 36] * 40_000}).encode()

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65536):
                yield body[start : start + 65536]

        for path in ("/queue", "/history", "/settings", "/jobs/cancel"):
            response = await api.client.post(path, data=chunks() if chunked else io.BytesIO(body))
            assert response.status == 413, path


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate), ("identity", bytes)],
)
async def test_packed_bodies_are_read_as_plain_ones(
    serving: Serving, name: str, pack: Callable[[bytes], bytes]
) -> None:
    async with serving(keys=KEYS) as api:
        body = pack(json.dumps({"prompt": picture_graph()}).encode())
        response = await api.post("/prompt", data=body, headers=key("a") | {"Content-Encoding": name})
        assert response.status == 200, await response.text()
        form = pack(b"key=key-a")
        login = await api.client.post("/login", data=form, headers={"Content-Encoding": name}, allow_redirects=False)
        assert login.status == 303


async def test_what_is_not_packed_as_it_says_is_a_400_and_an_unknown_packing_a_415(serving: Serving) -> None:
    async with serving() as api:
        for body in (b"not packed at all", gzip.compress(b"{}" * 100)[:-9]):
            assert (await api.post("/queue", data=body, headers=GZIP)).status == 400
        for name in ("br", "zstd", "gzip, gzip", "x" * 1000):
            assert (await api.post("/queue", data=b"{}", headers={"Content-Encoding": name})).status == 415


async def test_a_small_body_does_not_become_a_large_one(serving: Serving) -> None:
    async with serving() as api:
        for size, status in ((CALL - 2, 400), (CALL + 1, 413), (90_000_000, 413)):
            answer = await api.client.post("/prompt", data=gzip.compress(bytes(size), 9), headers=GZIP)
            assert answer.status == status, size


async def test_a_refused_body_is_let_go_with_its_answer(serving: Serving) -> None:
    async with serving() as api:
        gc.disable()  # what waits for the collector stays: a quiet server collects nothing for minutes
        tracemalloc.start()
        try:
            for _ in range(8):
                assert (await api.client.post("/prompt", data=b"{" * 1_000_000)).status == 400
            own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/transport/request_bodies.py")])
        finally:
            tracemalloc.stop()
            gc.enable()
        assert sum(trace.size for trace in own.traces) < 2_500_000  # not eight of them


async def test_large_bodies_of_all_keys_share_one_budget_and_small_ones_need_none(serving: Serving) -> None:
    """Each body stops before its end, so that all of them are held at once."""
    limit = 1024 * 1024
    async with serving(keys=KEYS, max_upload_mb=1) as api:
        going, ends = asyncio.Event(), asyncio.Event()

        async def slow(size: int) -> AsyncIterator[bytes]:
            for _ in range(size // 65536):
                yield bytes(65536)
            going.set()
            await ends.wait()
            yield b"}"

        async def sent(name: str, size: int) -> int:
            async with api.client.post("/prompt", data=slow(size), headers=key(name)) as answer:
                return answer.status

        budget = api.client.app[BUDGET]  # type: ignore[index]
        assert (budget.share, budget.in_all) == (limit, 2 * limit)
        first = asyncio.create_task(sent("a", 900_000))
        while budget.held["ann"] < 700_000:
            await asyncio.sleep(0.01)
        own = await api.client.post("/prompt", data=b"{" * 900_000, headers=key("a"))
        assert (own.status, own.headers["Retry-After"]) == (503, "5")
        assert "your share" in await own.text()
        assert (await api.client.post("/prompt", data=b"{" * 900_000, headers=key("b"))).status == 400
        await api.queue(picture_graph(), headers=key("a"))
        others = asyncio.create_task(sent("b", 900_000))
        while budget.held["bob"] < 700_000:
            await asyncio.sleep(0.01)
        full = await api.client.post("/prompt", data=b"{" * 900_000, headers=key("x"))
        assert (full.status, "other requests" in await full.text()) == (503, True)
        await api.queue(picture_graph(1), headers=key("a"))
        ends.set()
        assert await asyncio.gather(first, others) == [400, 400]
        assert not budget.held


async def test_a_packed_body_is_counted_as_what_it_becomes(serving: Serving) -> None:
    async with serving(keys=KEYS, max_upload_mb=12) as api:
        body = gzip.compress(json.dumps({"prompt": picture_graph(), "x": "y" * 200_000}).encode())
        budget = api.client.app[BUDGET]  # type: ignore[index]
        budget.held["ann"] = 5 * 1024 * 1024
        assert (await api.post("/prompt", data=body, headers=key("a") | GZIP)).status == 503  # it may become 8 MiB
        budget.held["ann"] = 4 * 1024 * 1024
        assert (await api.post("/prompt", data=body, headers=key("a") | GZIP)).status == 200
        assert budget.held == {"ann": 4 * 1024 * 1024}


def test_unpacking_stops_one_byte_past_the_limit() -> None:
    for limit in (0, 1, 999, LOGIN):
        assert len(unpacked(gzip.compress(bytes(1_000_000)), PACKINGS["gzip"], limit)) == limit + 1
    assert unpacked(gzip.compress(b"whole"), PACKINGS["gzip"], 5) == b"whole"


def test_only_one_file_reads_bodies_of_requests() -> None:
    ways = {"read", "post", "json", "text", "multipart", "content"}
    readers = {
        path.name
        for path in SERVER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "request" and node.attr in ways
    }
    assert readers == {"request_bodies.py"}
