"""What one key may take of the queue, of memory for lists and sockets, and of the disk for settings."""

import asyncio
import contextlib
import gc
import io
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sigmagraph.engine.compose.serving import job_settings
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.jobs.job import Submission
from sigmagraph.engine.server.comfy.hub import HUB
from sigmagraph.engine.server.comfy.outbox import Outbox, UnsentBudget
from sigmagraph.engine.server.comfy.socket_messages import Message, PictureFrame
from sigmagraph.engine.server.settings import Settings, as_toml
from tests.server.conftest import Api, Serving, Socket
from tests.server.endpoints.conftest import LARGE, SMALL
from tests.server.endpoints.conftest import serving as endpoints
from tests.server.stubs import picture_graph, slow_graph
from tests.server.test_security import KEYS, key

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("given", "share"),
    [({}, 2500), ({"max_queued": 8}, 2), ({"max_queued": 1}, 1), ({"max_queued_per_owner": 7}, 7)],
)
def test_a_key_has_a_share_of_the_queue(given: dict[str, int], share: int) -> None:
    assert job_settings(Settings(database="sqlite://", **given)).max_queued_per_owner == share


async def test_a_full_share_is_refused_with_a_time_to_come_back_and_nobody_else_is(serving: Serving) -> None:
    async with serving(keys=KEYS, jobs={"max_queued": 8, "max_queued_per_owner": 2}) as api:
        await api.jobs.pause()
        for turn in range(2):
            await api.queue(slow_graph(turn), headers=key("a"))
        full = await api.post("/prompt", {"prompt": slow_graph(9)}, headers=key("a"))
        assert (full.status, full.headers["Retry-After"]) == (429, "5")
        assert (await full.json())["error"]["type"] == "queue_share_used"
        await api.queue(picture_graph(), headers=key("b"))


async def test_without_keys_the_whole_queue_is_everybodys(serving: Serving) -> None:
    async with serving(jobs={"max_queued": 4, "max_queued_per_owner": 1}) as api:
        await api.jobs.pause()
        for turn in range(4):
            await api.queue(slow_graph(turn))
        full = await api.post("/prompt", {"prompt": slow_graph(9)})
        assert (full.status, full.headers["Retry-After"]) == (503, "5")


async def test_a_published_call_beyond_the_share_is_a_429(tmp_path: Path) -> None:
    async with endpoints(tmp_path, jobs={"max_queued_per_owner": 1}) as served:
        headers = await served.key()
        await served.jobs.pause()
        v2 = LARGE.replace("/v1/", "/v2/")
        assert (await served.client.post(v2, json=SMALL, headers=headers)).status == 200
        full = await served.client.post(v2, json=SMALL, headers=headers)
        assert (full.status, full.headers["Retry-After"]) == (429, "5")
        assert (await full.json())["code"] == "queue_share_used"


async def filled(api: Api, count: int, size: int) -> None:
    """Ended jobs, each with so many bytes of drawing."""
    extra = {"extra_pnginfo": {"workflow": {"notes": ["x" * 100] * (size // 100)}}}
    for turn in range(count):
        submission = Submission(parse_workflow(picture_graph(turn)), extra_data=extra, job_id=f"job-{turn}")
        await api.jobs.submit(submission)
        await api.jobs.wait(f"job-{turn}", timeout_s=20)


async def test_a_long_history_is_sent_as_it_is_read_and_never_held_whole(serving: Serving) -> None:
    async with serving() as api:
        await filled(api, 12, MEGABYTE)
        gc.collect()
        tracemalloc.start()
        try:

            async def size() -> int:
                async with await api.get("/history") as response:
                    return sum([len(chunk) async for chunk in response.content.iter_chunked(65536)])

            sizes = await asyncio.gather(*(size() for _ in range(4)))
            assert min(sizes) > 12 * MEGABYTE
            assert tracemalloc.get_traced_memory()[1] < 24 * MEGABYTE  # 4 replies of 12 MB, and what they are made of
        finally:
            tracemalloc.stop()


async def test_a_history_in_parts_is_the_history(serving: Serving) -> None:
    async with serving() as api:
        await filled(api, 12, MEGABYTE // 10)
        response = await api.get("/history")
        assert "Content-Length" not in response.headers
        whole = json.loads(await response.read())
        assert list(whole) == [f"job-{turn}" for turn in range(12)]
        for name, entry in whole.items():
            assert {name: entry} == await api.json(f"/history/{name}")
        assert list(await api.json("/history?max_items=2")) == ["job-10", "job-11"]
        assert list(await api.json("/history?offset=3&max_items=2")) == ["job-3", "job-4"]
        assert (await api.client.head("/history")).status == 200


async def test_the_queue_lists_what_runs_and_what_waits_in_parts_too(serving: Serving) -> None:
    async with serving() as api:
        running = await api.queue(slow_graph())
        await api.running(running)
        drawing = {"extra_pnginfo": {"workflow": {"notes": "x" * 100_000}}}
        waiting = [await api.queue(slow_graph(turn), extra_data=drawing) for turn in range(1, 8)]
        async with await api.get("/queue") as response:
            listed = json.loads(await response.read())
        assert [entry[1] for entry in listed["queue_running"]] == [running]
        assert [entry[1] for entry in listed["queue_pending"]] == waiting


async def test_nested_settings_take_no_more_disk_than_they_are(serving: Serving) -> None:
    async with serving() as api:
        nested: Any = [1] * 30_000
        for _ in range(400):  # indented by four, each number would take 1.6 KB
            nested = [nested]
        assert (await api.post("/settings/nested", nested)).status == 200
        assert (api.root / "user/default/comfy.settings.json").stat().st_size < 300_000
        assert await api.json("/settings/nested") == nested
        for turn in range(5):
            last = await api.post(f"/settings/more-{turn}", data=io.BytesIO(json.dumps("x" * 400_000).encode()))
        assert last.status == 413
        assert (api.root / "user/default/comfy.settings.json").stat().st_size <= 1024 * 1024
        assert (await api.post("/settings/nested", 1)).status == 200


def test_a_message_that_many_wait_for_is_one_copy() -> None:
    picture = PictureFrame("image/png", bytes(1000), {"prompt_id": "1"})
    assert picture.frame(takes_metadata=True) is picture.frame(takes_metadata=True)
    assert picture.frame(takes_metadata=False) is picture.frame(takes_metadata=False)
    message = Message("status", {"x": 1})
    assert message.text is message.text
    budget = UnsentBudget()
    boxes = [Outbox(budget, "ann") for _ in range(8)]
    for box in boxes:
        box.put(picture.frame(takes_metadata=False))
    assert budget.size == len(picture.frame(takes_metadata=False))
    for box in boxes:
        box.close()
    assert (budget.size, dict(budget.sizes)) == (0, {})


def test_who_reads_nothing_is_closed_before_who_reads_and_only_of_the_same_key() -> None:
    budget = UnsentBudget(per_owner=1000, in_all=1700)
    lazy, brisk, other = Outbox(budget, "ann"), Outbox(budget, "ann"), Outbox(budget, "bob")
    other.put(bytes(900))
    for turn in range(10):
        lazy.put(bytes([turn]) * 150)
    assert lazy.is_closed
    brisk.put(bytes(100))
    assert not brisk.is_closed
    assert not other.is_closed
    brisk.put(bytes(800))
    assert other.is_closed or brisk.is_closed  # both keys within their own, too much in all: the fullest goes
    assert budget.size <= 1700


@contextlib.asynccontextmanager
async def deaf(api: Api, sid: str, name: str) -> AsyncIterator[None]:
    """A socket whose other end never reads: a handshake, and then nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", api.client.port))
        lines = [
            f"GET /ws?clientId={sid} HTTP/1.1",
            f"Host: 127.0.0.1:{api.client.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Authorization: {key(name)['Authorization']}",
        ]
        await loop.sock_sendall(connection, "\r\n".join([*lines, "", ""]).encode())
        yield


async def test_sockets_that_are_never_read_are_closed_over_the_wire_and_others_are_not(serving: Serving) -> None:
    async with serving(keys=KEYS) as api, contextlib.AsyncExitStack() as ends:
        hub = api.client.app[HUB]  # type: ignore[index]
        hub.budget.per_owner, hub.budget.in_all, highest = 2 * MEGABYTE, 5 * MEGABYTE, 0
        for sid in ("deaf-1", "deaf-2"):
            await ends.enter_async_context(deaf(api, sid, "a"))
        readers = [await ends.enter_async_context(api.socket(name, headers=key(name))) for name in ("a", "b")]
        while len(hub) < 4:
            await asyncio.sleep(0.01)
        for owner, sid in (("ann", "deaf-1"), ("ann", "deaf-2"), ("ann", "a"), ("bob", "b")):
            hub.follow_logs(owner, sid, True)
        reads = [asyncio.create_task(reader.until(lambda message: "the end" in str(message))) for reader in readers]
        for _ in range(150):  # 15 MB for each, more than the kernel takes
            hub.logged({"m": "x" * 100_000})
            highest = max(highest, hub.budget.size)
            await asyncio.sleep(0.002)
        async with asyncio.timeout(10):
            while len(hub) > 2:
                await asyncio.sleep(0.05)
        assert highest <= 5 * MEGABYTE
        hub.logged({"m": "the end"})
        assert all(len(messages) > 10 for messages in await asyncio.gather(*reads))


async def test_a_number_of_5000_digits_on_a_socket_is_passed_over(serving: Serving) -> None:
    async with serving() as api, api.socket() as page:
        await page.next()
        await page.ws.send_str("1" * 5000)
        await page.ws.send_str(json.dumps({"type": "feature_flags", "data": {}}))
        assert (await Socket(page.ws).next())["type"] == "feature_flags"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hunter2@db.lan/jobs",
        "postgresql+psycopg://me:hun@ter2@db.lan/jobs",
        "postgresql://db.lan/jobs?user=me&password=hunter2",
        "s3://key:hunter2@bucket/folder",
    ],
)
def test_printed_settings_hold_no_password(address: str) -> None:
    shown = as_toml(Settings(database=address, artifacts=address))
    assert "ter2" not in shown
    assert shown.count("***") == 2
    plain = "sqlite:////home/me/user/jobs.sqlite"
    assert plain in as_toml(Settings(database=plain))
