"""What the protocol says of rarer things: blocked and expanded nodes, checks of a class's own, who hears of a stop."""

import asyncio
import logging
from typing import Any

import pytest

from sigmagraph.engine.server.comfy.internal import LINES
from tests.server.conftest import Api, Serving, is_end
from tests.server.stubs import picture_graph, slow_graph

SAVE = {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "x"}}


def through(kind: str, **inputs: Any) -> dict[str, Any]:
    """A picture, a node it goes through, and its saving."""
    middle = {"class_type": kind, "inputs": {"images": ["5", 0], **inputs}}
    return {"5": picture_graph()["5"], "7": middle, "9": SAVE}


def of_kind(messages: list[Any], kind: str) -> list[Any]:
    return [message["data"] for message in messages if isinstance(message, dict) and message["type"] == kind]


async def test_a_node_blocked_with_a_message_says_so_and_the_run_still_succeeds(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        prompt_id = await api.queue(through("Block", message="not today"), client_id="c")
        messages = await socket.until(is_end)
        [error] = of_kind(messages, "execution_error")
        assert error["exception_type"] == "ExecutionBlocked"
        assert error["node_id"] == "9"
        assert "not today" in error["exception_message"]
        assert error["current_inputs"] == []
        assert "timestamp" not in error
        assert len(of_kind(messages, "execution_success")) == 1
        entry = (await api.json(f"/history/{prompt_id}"))[prompt_id]
        assert [kind for kind, _ in entry["status"]["messages"]] == [
            *("execution_start", "execution_cached", "execution_success"),
        ]
        assert entry["outputs"] == {}


async def test_a_node_blocked_in_silence_is_not_spoken_of(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        await api.queue(through("Block", message=""), client_id="c")
        messages = await socket.until(is_end)
        assert of_kind(messages, "execution_error") == []
        assert of_kind(messages, "executed") == []
        assert len(of_kind(messages, "execution_success")) == 1


async def test_a_node_made_at_run_time_is_shown_on_the_one_that_made_it(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        await api.queue(through("Expand"), client_id="c")
        messages = await socket.until(is_end)
        [inner] = [data for data in of_kind(messages, "executing") if data["node"] not in ("5", "7", "9", None)]
        assert inner["display_node"] == "7"
        place = next(
            data["nodes"][inner["node"]]
            for data in of_kind(messages, "progress_state")
            if inner["node"] in data["nodes"]
        )
        assert (place["display_node_id"], place["parent_node_id"]) == ("7", "7")
        assert (place["node_id"], place["real_node_id"]) == (inner["node"], "7")
        outer = next(data["nodes"]["5"] for data in of_kind(messages, "progress_state") if "5" in data["nodes"])
        assert (outer["display_node_id"], outer["parent_node_id"]) == ("5", None)


async def test_a_stop_is_told_to_everyone_where_the_prompt_had_no_client(serving: Serving) -> None:
    async with serving() as api, api.socket("a") as a, api.socket("b") as b:
        running = await api.queue(slow_graph())
        await api.running(running)
        await api.post("/interrupt")
        for socket in (a, b):
            messages = await socket.until(lambda m: isinstance(m, dict) and m["type"] == "execution_interrupted")
            assert messages[-1]["data"]["prompt_id"] == running
            assert of_kind(messages, "execution_start") == []


async def test_an_older_socket_of_an_id_gets_nothing_any_more(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as old:
        await old.next()
        async with api.socket("c") as new:
            await new.next()
            await api.queue(picture_graph(), client_id="c")
            assert is_end((await new.until(is_end))[-1])
            with pytest.raises(asyncio.TimeoutError):
                await old.ws.receive(timeout=0.05)


async def test_a_client_that_asked_for_the_log_gets_new_lines(serving: Serving) -> None:
    async with serving() as api, api.socket("c") as socket:
        await socket.next()
        await api.client.patch("/internal/logs/subscribe", json={"clientId": "c", "enabled": True})
        lines = api.client.server.app[LINES]  # type: ignore[attr-defined]
        lines.emit(logging.LogRecord("sigmagraph", logging.INFO, "f", 1, "hello", None, None))
        message = await socket.next()
        assert message["type"] == "logs"
        assert message["data"]["size"] is None
        [entry] = message["data"]["entries"]
        assert entry["m"].endswith("hello\n")
        assert [line["m"] for line in (await api.json("/internal/logs/raw"))["entries"]] == [entry["m"]]
        await api.client.patch("/internal/logs/subscribe", json={"clientId": "c", "enabled": False})
        lines.emit(logging.LogRecord("sigmagraph", logging.INFO, "f", 1, "unheard", None, None))
        await api.queue(picture_graph(), client_id="c")
        assert of_kind(await socket.until(is_end), "logs") == []


async def refused(api: Api, graph: dict[str, Any]) -> Any:
    response = await api.post("/prompt", {"prompt": graph})
    assert response.status == 400
    return await response.json()


async def test_a_class_that_checks_its_own_input_has_the_word(serving: Serving) -> None:
    async with serving() as api:
        for number, is_odd in ((3, True), (11, True), (100, False)):  # the range is the class's own affair, too
            graph = {"9": {"class_type": "Picky", "inputs": {"number": number}}}
            if not is_odd:
                assert (await api.ended(await api.queue(graph)))["status"]["completed"] is True
                continue
            answer = await refused(api, graph)
            [error] = answer["node_errors"]["9"]["errors"]
            assert (error["type"], error["details"]) == ("custom_validation_failed", f"number - {number} is odd")
            assert error["extra_info"]["input_config"] == ["INT", {"default": 1, "min": 0, "max": 9}]
            assert error["extra_info"]["received_value"] == number
            assert answer["error"]["details"] == f"{error['message']}: {error['details']}"


async def test_a_long_list_is_not_repeated_in_the_error(serving: Serving) -> None:
    async with serving() as api:
        answer = await refused(api, {"9": {"class_type": "Pick", "inputs": {"letter": "letter 99"}}})
        [error] = answer["node_errors"]["9"]["errors"]
        assert error["details"] == "letter: 'letter 99' not in (list of length 30)"
        assert error["extra_info"]["input_config"] is None
        assert error["extra_info"]["received_value"] == "letter 99"


FLAT = picture_graph()["5"]
TEXT = {"class_type": "Text", "inputs": {"value": "", "flag": False, "factor": 0.5}}
KEYS: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "required_input_missing": ({"9": {"class_type": "PreviewImage", "inputs": {}}}, "9", set()),
    "bad_linked_input": (
        {"9": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0, 1]}}},
        "9",
        {"input_config", "received_value"},
    ),
    "return_type_mismatch": (
        {"5": TEXT, "9": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}}},
        "9",
        {"input_config", "received_type", "linked_node"},
    ),
    "invalid_input_type": (
        picture_graph(**{"5": {**FLAT, "inputs": FLAT["inputs"] | {"width": "wide"}}}),
        "5",
        {"input_config", "received_value", "exception_message"},
    ),
    "value_smaller_than_min": (
        picture_graph(**{"5": {**FLAT, "inputs": FLAT["inputs"] | {"width": 0}}}),
        "5",
        {"input_config", "received_value"},
    ),
    "exception_during_validation": (
        {"9": {"class_type": "PreviewImage", "inputs": {"images": ["77", 0]}}},
        "9",
        {"exception_type", "traceback"},
    ),
    "exception_during_inner_validation": (
        {
            "7": {"class_type": "Expand", "inputs": {"images": ["77", 0]}},
            "9": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
        },
        "7",
        {"input_config", "exception_message", "exception_type", "traceback", "linked_node"},
    ),
}


@pytest.mark.parametrize("kind", KEYS)
async def test_each_error_carries_what_clients_read(serving: Serving, kind: str) -> None:
    graph, node_id, keys = KEYS[kind]
    async with serving() as api:
        answer = await refused(api, graph)
        [error] = answer["node_errors"][node_id]["errors"]
        assert error["type"] == kind
        assert {"input_name", *keys} <= set(error["extra_info"])


@pytest.mark.parametrize("values", [("64", "64", 1), (64.7, 64, 1.0), (True, 1, 0.5)])
async def test_values_are_taken_as_leniently_as_clients_send_them(serving: Serving, values: Any) -> None:
    width, _, _ = values
    async with serving() as api:
        graph = picture_graph(**{"5": {**FLAT, "inputs": FLAT["inputs"] | {"width": width, "more": [1, 2, 3]}}})
        assert (await api.ended(await api.queue(graph)))["status"]["completed"] is True
