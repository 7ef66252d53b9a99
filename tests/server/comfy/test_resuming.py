"""A client that was away hears what it missed of its jobs; one that counts hears it to the message."""

import asyncio
import random
from typing import Any

import pytest
from aiohttp import WSCloseCode, WSMsgType, WSServerHandshakeError

from sigmagraph.engine.errors import StoreFailed
from sigmagraph.engine.server.comfy.hub import HUB
from tests.server.conftest import Api, Serving, is_end
from tests.server.stubs import picture_graph

STEPS = 60
OWN = ("prompt_id", "timestamp", "output")


def slow(turn: int) -> dict[str, Any]:
    """A graph of some hundred messages."""
    return {
        "1": {"class_type": "Slow", "inputs": {"seconds": 0.6, "steps": STEPS, "turn": turn}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def of_jobs(messages: list[Any]) -> list[Any]:
    """Messages with an event: previews and what is said about the server as a whole are of the moment."""
    return [message for message in messages if isinstance(message, dict) and "event" in message]


def plain(messages: list[Any]) -> list[Any]:
    """What two runs of one graph have in common: times, ids and file names are each one's own."""
    found = []
    for message in messages:
        data = {k: v for k, v in message["data"].items() if k not in OWN}
        if isinstance(data.get("nodes"), dict):
            data["nodes"] = [{k: v for k, v in node.items() if k not in OWN} for node in data["nodes"].values()]
        found.append((message["type"], data))
    return found


async def heard(api: Api, path: str, most: int = 10**6) -> list[Any]:
    """Messages of jobs until the job's end, or until enough of them have come; then the line is cut."""
    messages: list[Any] = []
    async with api.client.ws_connect(path) as ws:
        while len(messages) < most:
            frame = await ws.receive(20)
            message = frame.json() if frame.type.name == "TEXT" else b""
            messages += of_jobs([message])
            if is_end(message):
                break
        line = ws._response.connection
        if line is not None and line.transport is not None:
            line.transport.abort()  # no farewell: what was on its way is lost
    return messages


async def test_twenty_cuts_lose_and_repeat_nothing(serving: Serving) -> None:
    chance = random.Random(5)
    async with serving() as api:
        watching = asyncio.create_task(heard(api, "/ws?clientId=whole&events=1"))
        await api.queue(slow(1), client_id="whole")
        whole = await watching
        job_id = await api.queue(slow(2), client_id="cut")
        pieces: list[Any] = []
        last = job_id
        for cut in range(21):
            most = chance.randint(1, 9) if cut < 20 else 10**6
            pieces += await heard(api, f"/ws?clientId=cut&events=1&after={last}", most)
            last = pieces[-1]["event"]
        assert [message["event"] for message in pieces] == sorted(
            {message["event"] for message in pieces}, key=lambda event: [int(p) for p in event.split(":")[1].split(".")]
        )
        assert plain(pieces) == plain(whole)
        assert len(pieces) > STEPS


async def test_a_page_that_was_away_hears_the_whole_of_what_it_missed_once(serving: Serving) -> None:
    async with serving() as api:
        async with api.socket("page") as page:
            await page.next()
        while len(api.client.app[HUB]):  # the server has noticed
            await asyncio.sleep(0.01)
        first = await api.queue(picture_graph(1), client_id="page")
        await api.ended(first)
        async with api.socket("page") as page:
            missed = await page.until(is_end)
            second = await api.queue(picture_graph(2), client_id="page")
            live = await page.until(is_end)
        kinds = [[m["type"] for m in told if m["type"] != "status"] for told in (missed, live)]
        assert kinds[0] == kinds[1]
        assert missed[0]["type"] == "status"
        assert {m["data"]["prompt_id"] for m in missed if m["type"] != "status"} == {first}
        assert {m["data"]["prompt_id"] for m in live if m["type"] != "status"} == {second}


async def test_what_was_heard_counts_across_a_restart(serving: Serving) -> None:
    async with serving() as api:
        job_id = await api.queue(picture_graph(), client_id="c")
        await api.ended(job_id)
        whole = await heard(api, f"/ws?clientId=c&events=1&after={job_id}")
    async with serving() as api:
        assert await heard(api, f"/ws?clientId=c&events=1&after={job_id}") == whole
        middle = whole[len(whole) // 2]["event"]
        assert await heard(api, f"/ws?clientId=c&events=1&after={middle}") == whole[len(whole) // 2 + 1 :]


async def test_jobs_of_other_clients_are_not_told(serving: Serving) -> None:
    async with serving() as api:
        job_id = await api.queue(picture_graph(), client_id="c")
        await api.ended(job_id)
        async with api.client.ws_connect(f"/ws?clientId=d&events=1&after={job_id}&after=nobody") as ws:
            assert (await ws.receive_json())["type"] == "status"
            with pytest.raises(TimeoutError):
                await ws.receive(0.2)


@pytest.mark.parametrize("after", ["p:", "p:1", "p:1.x", "p:-1.0", "p:1.²", ":1.1", "p:" + "9" * 40 + ".0"])
async def test_a_mark_that_is_none_is_refused(serving: Serving, after: str) -> None:
    async with serving() as api:
        with pytest.raises(WSServerHandshakeError) as refusal:
            await api.client.ws_connect("/ws", params={"after": after})
        assert refusal.value.status == 400


async def test_a_page_whose_past_cannot_be_read_is_sent_away_and_forgotten(serving: Serving, monkeypatch: Any) -> None:
    async def broken(*_: Any) -> Any:
        raise StoreFailed("the job store is locked")

    async with serving() as api:
        with monkeypatch.context() as trouble:
            trouble.setattr(api.jobs, "get", broken)
            async with api.client.ws_connect("/ws?clientId=c&after=job") as ws:
                while (said := await ws.receive(5)).type is WSMsgType.TEXT:  # the greeting, if it got that far
                    pass
                assert (said.type, said.data) == (WSMsgType.CLOSE, WSCloseCode.TRY_AGAIN_LATER)
        async with asyncio.timeout(5):
            while len(api.client.server.app[HUB]):  # type: ignore[attr-defined]  # the test server has one
                await asyncio.sleep(0.01)
        async with api.socket("c") as socket:
            assert (await socket.next())["data"]["sid"] == "c"
