"""The socket: greeting, order of messages, who hears what, reconnecting, previews, slow readers."""

import asyncio
import base64
import json
import struct
from socket import SO_RCVBUF, SOL_SOCKET
from socket import socket as TcpSocket
from typing import Any

from sigmagraph.engine.errors import StoreFailed
from sigmagraph.engine.jobs.workers.worker import Picture
from sigmagraph.engine.server.comfy.hub import HUB
from tests.server import stubs
from tests.server.conftest import Serving, is_end
from tests.server.stubs import PREVIEW, picture_graph, slow_graph

FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
SEND_GRAPH = {
    "5": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": 1}},
    "9": {"class_type": "Send", "inputs": {"images": ["5", 0]}},
}


def kinds(messages: list[Any]) -> list[str]:
    """Types of text messages, with the node's state where it has one."""
    found = []
    for message in messages:
        data = message["data"]
        last = list(data["nodes"].values())[-1] if message["type"] == "progress_state" else {}
        found.append(f"{last['node_id']} {last['state']}" if last else message["type"])
    return found


async def test_the_first_message_greets_with_the_exact_count_and_the_id(serving: Serving) -> None:
    async with serving() as api:
        async with api.socket("mine") as one:
            greeting = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "mine"}
            assert await one.next() == {"type": "status", "data": greeting}
        await api.queue(slow_graph())
        async with api.socket() as two:
            data = (await two.next())["data"]
            assert data["status"]["exec_info"]["queue_remaining"] == 1
            assert len(data["sid"]) == 32


async def test_every_page_of_an_owner_hears_which_jobs_were_deleted(serving: Serving) -> None:
    async with serving() as api, api.socket("one") as one, api.socket("two") as two:
        prompt_id = await api.queue(picture_graph(), client_id="one")
        await one.until(is_end)
        await api.post("/history", {"delete": [prompt_id, "unknown"]})
        await api.post("/history", {"clear": True})
        for socket in (one, two):
            for gone in ([prompt_id], "all"):
                data = (await socket.until(lambda message: "deleted" in message["data"]))[-1]["data"]
                assert data == {"status": {"exec_info": {"queue_remaining": 0}}, "deleted": gone}


async def test_the_messages_of_one_prompt_come_in_order_cold_and_cached(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        await socket.next()
        prompt_id = await api.queue(picture_graph(), client_id="c")
        cold = await socket.until(is_end)
        assert kinds(cold) == [
            *("status", "status", "execution_start", "execution_cached"),
            *("5 running", "executing", "5 finished"),
            *("9 running", "executing", "executed", "9 finished"),
            *("execution_success", "status", "executing"),
        ]
        assert all(m["data"]["prompt_id"] == prompt_id for m in cold if m["type"] != "status")
        assert [m["data"]["status"]["exec_info"]["queue_remaining"] for m in cold if m["type"] == "status"] == [1, 1, 0]
        assert cold[-1] == {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}
        executed = next(m for m in cold if m["type"] == "executed")["data"]
        assert executed["node"] == executed["display_node"] == "9"
        assert executed["output"]["images"][0]["filename"] == "x_00001_.png"
        await api.queue(picture_graph(), client_id="c")
        cached = await socket.until(is_end)
        assert next(m for m in cached if m["type"] == "execution_cached")["data"]["nodes"] == ["5", "9"]
        assert {"5 running", "9 running"}.isdisjoint(kinds(cached))
        assert next(m for m in cached if m["type"] == "executed")["data"]["output"] == executed["output"]


async def test_history_is_there_when_the_end_is_told(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        await socket.next()
        prompt_id = await api.queue(picture_graph(), client_id="c")
        await socket.until(lambda m: m["type"] == "execution_success")
        assert prompt_id in await api.json(f"/history/{prompt_id}")


async def test_type_is_the_first_key_and_blanks_are_none(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        message = await socket.ws.receive()
        assert str(message.data).startswith('{"type":"status"')


async def test_a_failed_node_is_told_with_everything_about_it(serving: Serving) -> None:
    graph = picture_graph(**{"9": {"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "now"}}})
    async with serving() as api, api.socket("c") as socket:
        prompt_id = await api.queue(graph, client_id="c")
        messages = await socket.until(is_end)
        data = next(m for m in messages if m["type"] == "execution_error")["data"]
        assert data["node_id"] == "9"
        assert data["node_type"] == "Fail"
        assert data["exception_message"] == "failed now\n"
        assert data["exception_type"] == "RuntimeError"
        assert data["executed"] == ["5"]
        assert any("stubs.py" in line for line in data["traceback"])
        assert "execution_success" not in kinds(messages)
        entry = (await api.json(f"/history/{prompt_id}"))[prompt_id]
        assert entry["status"]["status_str"] == "error"
        kind, stored = entry["status"]["messages"][-1]
        assert kind == "execution_error"
        assert {**stored, "current_inputs": 0} == {**data, "current_inputs": 0}
        assert set(stored["current_inputs"]) == {"images", "how"}


async def test_an_interrupted_prompt_is_told_as_such(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        prompt_id = await api.queue(slow_graph(), client_id="c")
        await socket.until(lambda m: isinstance(m, dict) and m["type"] == "progress")
        assert (await api.post("/interrupt", {"prompt_id": prompt_id})).status == 200
        messages = await socket.until(is_end)
        data = next(m for m in messages if isinstance(m, dict) and m["type"] == "execution_interrupted")["data"]
        assert (data["node_id"], data["node_type"]) == ("1", "Slow")
        entry = (await api.json(f"/history/{prompt_id}"))[prompt_id]
        assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
        assert entry["status"]["messages"][-1][0] == "execution_interrupted"


async def test_directed_messages_reach_their_client_only_and_progress_everyone_without_one(serving: Serving) -> None:
    async with serving() as api, api.socket("a") as a, api.socket("b") as b:
        await api.queue(picture_graph(), client_id="a")
        await a.until(is_end)
        await api.queue(picture_graph(1))
        messages = await b.until(
            lambda m: m["type"] == "status" and not m["data"]["status"]["exec_info"]["queue_remaining"]
        )
        messages += await b.until(lambda m: m["type"] == "progress_state")
        assert set(kinds(messages)) == {"status", "5 running"}


async def test_flags_count_as_the_first_message_and_invalid_json_before_does_not(serving: Serving) -> None:
    async with serving() as api:
        async with api.socket("c") as socket:
            await socket.next()
            await socket.ws.send_str("{")
            await socket.ws.send_str(FLAGS)
            answer = await socket.next()
            assert answer["type"] == "feature_flags"
            assert answer["data"] == await api.json("/features")
        async with api.socket("d") as socket:
            await socket.next()
            await socket.ws.send_str("{}")
            await socket.ws.send_str(FLAGS)
            await api.queue(picture_graph(), client_id="d")
            assert "feature_flags" not in kinds(await socket.until(is_end))


async def test_a_client_that_reads_no_metadata_is_spared_previews_but_gets_results(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        graph = SEND_GRAPH | {"1": {"class_type": "Slow", "inputs": {"seconds": 0.1, "steps": 20, "turn": 0}}}
        graph["10"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        await api.queue(graph, client_id="c")
        frames = [m for m in await socket.until(is_end) if isinstance(m, bytes)]
        assert [frame[8:12] for frame in frames] == [b"\x89PNG"]


async def test_previews_carry_metadata_for_those_who_said_so_and_are_bare_for_others(serving: Serving) -> None:
    async with serving(bare_previews=True) as api, api.socket("new") as new, api.socket("old") as old:
        await new.ws.send_str(FLAGS)
        await new.until(lambda m: m["type"] == "feature_flags")
        prompt_id = await api.queue(slow_graph())
        frame = (await new.until(lambda m: isinstance(m, bytes)))[-1]
        kind, length = struct.unpack(">II", frame[:8])
        assert kind == 4
        place = {"display_node_id": "1", "parent_node_id": None, "real_node_id": "1"}
        head = {"node_id": "1", "prompt_id": prompt_id, **place, "image_type": "image/jpeg"}
        assert json.loads(frame[8 : 8 + length]) == head
        assert frame[8 + length :] == PREVIEW.data
        bare = (await old.until(lambda m: isinstance(m, bytes)))[-1]
        assert struct.unpack(">II", bare[:8]) == (1, 1)
        assert bare[8:] == PREVIEW.data


async def test_a_result_over_the_socket_is_a_png_while_its_node_is_executing(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        await api.queue(SEND_GRAPH, client_id="c")
        messages = await socket.until(is_end)
        frames = [m for m in messages if isinstance(m, bytes)]
        at = messages.index(frames[0])
        executing = [m["data"]["node"] for m in messages[:at] if isinstance(m, dict) and m["type"] == "executing"]
        assert executing[-1] == "9"
        assert struct.unpack(">II", frames[0][:8]) == (1, 2)
        assert frames[0][8:].startswith(b"\x89PNG")


async def test_a_newer_socket_takes_an_id_over_and_keeps_it_when_the_old_one_closes(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as new:
        async with api.socket("c") as newest:
            await newest.next()
        await new.next()
        async with api.socket("c") as last:
            await last.next()
            await api.queue(picture_graph(), client_id="c")
            assert is_end((await last.until(is_end))[-1])


async def test_a_client_that_returns_is_told_what_runs(serving: Serving) -> None:
    async with serving() as api:
        prompt_id = await api.queue(slow_graph(), client_id="c")
        await api.running(prompt_id)
        async with api.socket("watch") as other:
            await other.next()
        await asyncio.sleep(0.1)
        async with api.socket("c") as socket:
            assert (await socket.next())["type"] == "status"
            assert await socket.next() == {"type": "executing", "data": {"node": "1"}}


def deaf(port: int) -> TcpSocket:
    """A client that joins with the smallest of windows and never reads a byte."""
    end = TcpSocket()
    end.setsockopt(SOL_SOCKET, SO_RCVBUF, 2048)
    end.connect(("127.0.0.1", port))
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    key = base64.b64encode(b"0123456789abcdef").decode()
    end.sendall(f"GET /ws?clientId=deaf HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}{key}\r\n\r\n".encode())
    return end


async def test_a_reader_that_never_reads_slows_no_job(serving: Serving, monkeypatch: Any) -> None:
    monkeypatch.setattr(stubs, "PREVIEW", Picture("image/jpeg", b"\xff" * 300_000))
    graph = {"1": {"class_type": "Slow", "inputs": {"seconds": 0.5, "steps": 1_000, "turn": 0}}}
    graph["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    async with serving(bare_previews=True) as api, api.socket("c") as socket:
        with deaf(api.client.port or 0):
            clients = api.client.server.app[HUB]._clients  # type: ignore[attr-defined]
            while ("local", "deaf") not in clients:
                await asyncio.sleep(0.01)
            prompt_id = await api.queue(graph)  # of no client: previews and progress go to everyone
            heard = await socket.until(lambda m: isinstance(m, dict) and m["type"] == "progress" and done(m))
            assert len([m for m in heard if isinstance(m, bytes)]) > 10
            assert (await api.ended(prompt_id))["status"]["completed"] is True
            waiting = clients["local", "deaf"].outbox
            assert len(waiting) > 0  # it is behind, and nobody waited for it
            assert waiting.size < 100 * 300_000  # older pictures made room for newer ones


def done(message: Any) -> bool:
    """The last tick of a node."""
    return bool(message["data"]["value"] == message["data"]["max"])


async def test_a_large_graph_costs_little_on_the_socket(serving: Serving) -> None:
    graph: dict[str, Any] = {}
    for i in range(1, 301):
        graph[str(i)] = {"class_type": "Text", "inputs": {"value": str(i), "flag": False, "factor": 0.5}}
        if i > 1:
            graph[str(i)]["inputs"]["value"] = [str(i - 1), 0]
    graph["end"] = {"class_type": "ShowText", "inputs": {"text": ["300", 0]}}
    async with serving() as api, api.socket("c") as socket:
        await api.queue(graph, client_id="c")
        size = sum(len(json.dumps(m)) for m in await socket.until(is_end))
        assert size < 300_000


async def test_an_event_that_cannot_be_told_silences_nobody(serving: Serving, monkeypatch: Any) -> None:
    async with serving() as api, api.socket("c") as socket:
        await socket.next()

        async def broken(*_: Any) -> Any:
            raise StoreFailed("the job store is closed")

        with monkeypatch.context() as patch:
            patch.setattr(api.jobs, "counts", broken)
            await api.jobs.wait(await api.queue(picture_graph(), client_id="c"))
        prompt_id = await api.queue(picture_graph(1), client_id="c")
        last = (await socket.until(lambda m: is_end(m) and m["data"]["prompt_id"] == prompt_id))[-1]
        assert is_end(last)
