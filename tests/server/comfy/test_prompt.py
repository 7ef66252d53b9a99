"""`/prompt`: accepting, refusing, numbering."""

import json
import uuid
from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.jobs import check
from sigmagraph.engine.jobs.job import Submission
from sigmagraph.engine.jobs.workers import runner
from sigmagraph.engine.server.comfy import prompt as prompts
from tests.server.conftest import Serving
from tests.server.stubs import picture_graph, slow_graph
from tests.server.test_security import KEYS, key


async def test_a_prompt_runs_and_its_picture_can_be_viewed(serving: Serving) -> None:
    async with serving() as api:
        prompt_id = await api.queue(picture_graph(), client_id="c")
        entry = await api.ended(prompt_id)
        assert entry["status"]["status_str"] == "success"
        assert entry["status"]["completed"] is True
        assert entry["outputs"] == {"9": {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "output"}]}}
        assert entry["prompt"][1:3] == [prompt_id, picture_graph()]
        assert entry["prompt"][3]["client_id"] == "c"
        assert entry["prompt"][4] == ["9"]
        assert entry["meta"]["9"] == {"node_id": "9", "display_node": "9", "parent_node": None, "real_node_id": "9"}
        kinds = [kind for kind, _ in entry["status"]["messages"]]
        assert kinds == ["execution_start", "execution_cached", "execution_success"]
        shown = await api.get("/view?filename=x_00001_.png")
        assert (await shown.read()).startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"])
async def test_the_content_type_of_a_body_does_not_matter(serving: Serving, kind: str) -> None:
    async with serving() as api:
        body = json.dumps({"prompt": picture_graph()}).encode()
        response = await api.post("/api/prompt", data=body, headers={"Content-Type": kind})
        assert response.status == 200
        answer = await response.json()
        assert answer["node_errors"] == {}
        assert str(uuid.UUID(answer["prompt_id"])) == answer["prompt_id"]


MINE, LETTERS = str(uuid.UUID(int=7)), str(uuid.UUID(int=10**38))
ODD_IDS: tuple[tuple[Any, str], ...] = (
    ("mine", "'mine'"),
    ("", "''"),
    (7, "7"),
    ([MINE], f"['{MINE}']"),
    ("X" * 100_000, "X…'"),
    (LETTERS.upper(), LETTERS),
    (uuid.UUID(MINE).hex, MINE),
    ("{" + MINE + "}", MINE),
    (f"urn:uuid:{MINE}", MINE),
    ("\uff10" * 8 + MINE[8:], MINE),
)
"""What is not an id, and what the refusal says of it: the value, shortened; of a UUID in another form the right one."""


async def test_a_client_may_choose_the_id_but_not_twice(serving: Serving) -> None:
    async with serving() as api:
        assert await api.queue(picture_graph(), prompt_id=MINE) == MINE
        again = await api.post("/prompt", {"prompt": picture_graph(), "prompt_id": MINE})
        assert again.status == 400
        assert (await again.json())["error"]["type"] == "invalid_prompt_id"
        given = await api.queue(picture_graph(), prompt_id=None)
        assert str(uuid.UUID(given)) == given != MINE


async def test_an_id_that_is_not_a_canonical_uuid_is_refused_with_the_reason(serving: Serving) -> None:
    async with serving() as api:
        for value, said in ODD_IDS:
            refused = await api.post("/prompt", {"prompt": picture_graph(), "prompt_id": value})
            error = (await refused.json())["error"]
            assert (refused.status, error["type"]) == (400, "invalid_prompt_id"), value
            assert error["message"].startswith("prompt_id: "), error
            assert said in error["message"], error
            assert "is not allowed; expected a lower-case UUID such as " in error["message"], error
            assert len(error["message"]) < 2500
        assert (await api.json("/jobs"))["jobs"] == []


async def test_a_job_with_an_id_of_other_times_is_read_and_deleted_as_ever(serving: Serving) -> None:
    """Servers once took any id, and programs that use the job service in Python still choose theirs."""
    async with serving() as api:
        await api.jobs.submit(Submission(parse_workflow(picture_graph()), job_id="mine no. 7"))
        assert (await api.ended("mine no. 7"))["status"]["status_str"] == "success"
        assert (await api.json("/jobs/mine%20no.%207"))["id"] == "mine no. 7"
        log = await (await api.get("/jobs/mine%20no.%207/events")).text()
        assert "event: Ended" in log
        assert (await api.json("/history"))["mine no. 7"]["outputs"]
        assert (await api.post("/history", {"delete": ["mine no. 7"]})).status == 200
        assert await api.json("/history") == {}


async def test_nobody_can_guess_the_id_that_another_key_will_choose(serving: Serving) -> None:
    async with serving(keys=KEYS) as api:
        for guessed in ("1", "mine"):
            refused = await api.post("/prompt", {"prompt": picture_graph(), "prompt_id": guessed}, headers=key("a"))
            assert (refused.status, (await refused.json())["error"]["type"]) == (400, "invalid_prompt_id")
        own = str(uuid.uuid4())
        assert await api.queue(picture_graph(), prompt_id=own, headers=key("a")) == own
        taken = await api.post("/prompt", {"prompt": picture_graph(), "prompt_id": own}, headers=key("b"))
        assert taken.status == 400
        for path in (f"/history/{own}", f"/jobs/{own}"):
            assert "EmptyImage" not in await (await api.get(path, headers=key("b"))).text()
        await api.jobs.wait(own, timeout_s=20)
        assert own in await (await api.get(f"/history/{own}", headers=key("a"))).json()


async def test_numbers_come_back_as_sent_and_front_goes_before_the_counter(serving: Serving) -> None:
    async with serving() as api:
        await api.queue(slow_graph())
        answers = []
        for more in ({}, {"number": 3.5}, {"number": "7"}, {"front": True}):
            response = await api.post("/prompt", {"prompt": picture_graph(), **more})
            answers.append((await response.json())["number"])
        assert isinstance(answers[0], int)
        assert answers[1:3] == [3.5, 7.0]
        assert answers[3] < 0
        bad = await api.post("/prompt", {"prompt": picture_graph(), "number": "many"})
        assert bad.status == 400


async def test_secrets_of_others_are_neither_queued_nor_kept(serving: Serving) -> None:
    async with serving() as api:
        extra = {"auth_token_comfy_org": "s3cret", "api_key_comfy_org": "s3cret", "kept": 1}
        running = await api.queue(slow_graph(), extra_data=extra)
        await api.running(running)
        assert "s3cret" not in json.dumps(await api.json("/queue"))
        done = await api.queue(picture_graph(), extra_data=extra, number=-9)
        await api.post("/interrupt")
        entry = await api.ended(done)
        assert "s3cret" not in json.dumps(entry)
        assert entry["prompt"][3]["kept"] == 1
        assert isinstance(entry["prompt"][3]["create_time"], int)


async def test_only_the_chosen_outputs_run(serving: Serving) -> None:
    two = picture_graph(**{"10": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}}})
    async with serving() as api:
        entry = await api.ended(await api.queue(two, partial_execution_targets=["10"]))
        assert list(entry["outputs"]) == ["10"]
        response = await api.post("/prompt", {"prompt": two, "partial_execution_targets": ["5"]})
        assert (await response.json())["error"]["type"] == "prompt_no_outputs"


async def test_valid_outputs_run_beside_bad_ones_which_are_named(serving: Serving) -> None:
    graph = picture_graph(**{"10": {"class_type": "ShowText", "inputs": {}}})
    async with serving() as api:
        response = await api.post("/prompt", {"prompt": graph})
        body = await response.json()
        assert response.status == 200
        assert list(body["node_errors"]) == ["10"]
        assert list((await api.ended(body["prompt_id"]))["outputs"]) == ["9"]


async def test_get_prompt_counts_what_waits_and_runs(serving: Serving) -> None:
    async with serving() as api:
        assert await api.json("/prompt") == {"exec_info": {"queue_remaining": 0}}
        await api.queue(slow_graph())
        await api.queue(slow_graph(1))
        assert await api.json("/api/prompt") == {"exec_info": {"queue_remaining": 2}}


WHOLE: dict[str, tuple[Any, str, str]] = {
    "no prompt": ({}, "no_prompt", "No prompt provided"),
    "not an object": ([1], "no_prompt", "No prompt provided"),
    "empty": ({"prompt": {}}, "prompt_no_outputs", ""),
    "empty list": ({"prompt": []}, "prompt_no_outputs", ""),
    "no class": ({"prompt": {"5": {"inputs": {}}}}, "invalid_prompt", "Node ID '#5'"),
    "unknown class": ({"prompt": {"5": {"class_type": "Nope", "inputs": {}}}}, "invalid_prompt", "Node ID '#5'"),
    "no output": ({"prompt": {"5": {"class_type": "EmptyImage", "inputs": {}}}}, "prompt_no_outputs", ""),
    "prompt is a string": ({"prompt": "hello"}, "invalid_prompt", None),
    "node is a list": ({"prompt": {"5": []}}, "invalid_prompt", None),
}


@pytest.mark.parametrize("case", WHOLE)
async def test_a_refused_prompt_says_why_in_one_shape(serving: Serving, case: str) -> None:
    body, kind, details = WHOLE[case]
    async with serving() as api:
        response = await api.post("/prompt", body)
        answer = await response.json()
        assert response.status == 400
        assert set(answer) == {"error", "node_errors"}
        assert set(answer["error"]) == {"type", "message", "details", "extra_info"}
        assert answer["error"]["type"] == kind
        assert answer["node_errors"] == {}
        assert details is None or answer["error"]["details"] == details


async def test_a_number_no_float_holds_is_refused(serving: Serving) -> None:
    async with serving() as api:
        response = await api.post("/prompt", {"prompt": picture_graph(), "number": 10**400})
        assert (response.status, (await response.json())["error"]["type"]) == (400, "invalid_prompt")


async def test_malformed_json_is_a_400_not_a_500(serving: Serving) -> None:
    async with serving() as api:
        for data in (b"{", b"\xff\xfe", b"[" * 100_000):
            assert (await api.post("/prompt", data=data)).status == 400


def saved(**inputs: Any) -> dict[str, Any]:
    """A picture graph with changed inputs of the first node."""
    graph = picture_graph()
    graph["5"]["inputs"] |= inputs
    return graph


SAVE = {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}}
TEXT_SAVED = {"5": {"class_type": "Text", "inputs": {"value": "", "flag": False, "factor": 0.5}}, "9": SAVE}
WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "too big": (saved(width=99999), "5", "value_bigger_than_max", "width"),
    "too small": (saved(width=0), "5", "value_smaller_than_min", "width"),
    "no number": (saved(width="wide"), "5", "invalid_input_type", "width, wide, "),
    "missing": (
        {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}},
        "9",
        "required_input_missing",
        "images",
    ),
    "three in a link": (
        {"9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0, 1], "filename_prefix": "x"}}},
        "9",
        "bad_linked_input",
        "images",
    ),
    "other type": (
        TEXT_SAVED,
        "9",
        "return_type_mismatch",
        "images, received_type(STRING) mismatch input_type(IMAGE)",
    ),
    "link to nowhere": (
        {"9": {"class_type": "SaveImage", "inputs": {"images": ["77", 0], "filename_prefix": "x"}}},
        "9",
        "exception_during_validation",
        "77",
    ),
    "slot too large": (
        picture_graph(**{"9": {"class_type": "SaveImage", "inputs": {"images": ["5", 4], "filename_prefix": "x"}}}),
        "9",
        "exception_during_validation",
        "output 4",
    ),
    "number as node id": (
        picture_graph(**{"9": {"class_type": "SaveImage", "inputs": {"images": [5, 0], "filename_prefix": "x"}}}),
        "9",
        "exception_during_validation",
        "images",
    ),
    "not in list": (
        picture_graph(**{"9": {"class_type": "Fail", "inputs": {"images": ["5", 0], "how": "never"}}}),
        "9",
        "value_not_in_list",
        "how: 'never' not in ['now', 'later']",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_every_kind_of_wrong_input_is_named_at_its_node(serving: Serving, case: str) -> None:
    graph, node_id, kind, details = WRONG[case]
    async with serving() as api:
        response = await api.post("/prompt", {"prompt": graph})
        answer = await response.json()
        assert response.status == 400
        assert answer["error"]["type"] == "prompt_outputs_failed_validation"
        assert list(answer["node_errors"]) == [node_id]
        entry = answer["node_errors"][node_id]
        assert entry["class_type"] == graph[node_id]["class_type"]
        assert entry["dependent_outputs"] == ["9"]
        [error] = entry["errors"]
        assert error["type"] == kind
        assert details in error["details"]
        assert error["extra_info"]["input_name"] in error["details"]
        is_output = node_id == "9"
        assert bool(answer["error"]["details"]) == is_output


async def test_an_error_carries_the_received_value_and_the_declaration(serving: Serving) -> None:
    async with serving() as api:
        answer = await (await api.post("/prompt", {"prompt": saved(width=99999)})).json()
        [error] = answer["node_errors"]["5"]["errors"]
        config = ["INT", {"default": 512, "min": 1, "max": 16384}]
        assert error["extra_info"] == {"input_name": "width", "received_value": 99999, "input_config": config}


async def test_a_graph_larger_than_the_limit_is_refused_before_it_is_read(serving: Serving) -> None:
    async with serving(max_nodes=3) as api:
        graph = {str(i): {"class_type": "EmptyImage", "inputs": {}} for i in range(4)}
        answer = await (await api.post("/prompt", {"prompt": graph})).json()
        assert "at most 3" in answer["error"]["message"]


async def test_an_idempotency_key_makes_one_job_of_two_requests(serving: Serving) -> None:
    async with serving() as api:
        ids = [await api.queue(picture_graph(), headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert ids[0] == ids[1]
        other = await api.post("/prompt", {"prompt": picture_graph(1)}, headers={"Idempotency-Key": "k"})
        assert other.status == 409


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        # a class that checks itself is asked in the worker, which keeps what it found for the job
        (
            {"9": {"class_type": "Picky", "inputs": {"number": 2}}},
            {"read here": 1, "read there": 1, "checked there": 1},
        ),
        (picture_graph(), {"read here": 1, "checked here": 1, "read there": 1, "checked there": 1}),
    ],
    ids=["asked", "told"],
)
async def test_a_prompt_is_read_and_checked_once_on_each_side(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, prompt: Any, expected: dict[str, int]
) -> None:
    calls: Counter[str] = Counter()

    def counted(module: ModuleType, function: str, name: str) -> None:
        real = getattr(module, function)

        def count(*arguments: Any) -> Any:
            calls[name] += 1
            return real(*arguments)

        monkeypatch.setattr(module, function, count)

    counted(prompts, "parse_workflow", "read here")
    counted(check, "validate", "checked here")
    counted(runner, "parse_workflow", "read there")
    counted(runner, "validate", "checked there")
    async with serving() as api:
        entry = await api.ended(await api.queue(prompt))
    assert entry["status"]["status_str"] == "success"
    assert calls == expected


async def test_a_refused_second_use_of_an_id_changes_nothing_for_the_first(serving: Serving) -> None:
    """The worker has checked both prompts under one id by then."""
    async with serving() as api:
        slow = await api.queue(slow_graph())
        mine = await api.queue({"9": {"class_type": "Picky", "inputs": {"number": 2}}})
        other = {"8": {"class_type": "Picky", "inputs": {"number": 4}}}
        assert (await api.post("/prompt", {"prompt": other, "prompt_id": mine})).status == 400
        await api.post("/interrupt", {"prompt_id": slow})
        entry = await api.ended(mine)
        assert entry["status"]["status_str"] == "success"
        assert list(entry["prompt"][2]) == ["9"]


async def test_a_class_that_is_gone_runs_as_what_stands_in_for_it(serving: Serving) -> None:
    async with serving() as api:
        graph = picture_graph()
        old = next(node_id for node_id, node in graph.items() if node["class_type"] == "EmptyImage")
        graph[old] = {"class_type": "GoneImage", "inputs": {"w": 9}}
        entry = await api.ended(await api.queue(graph))
        assert entry["status"]["status_str"] == "success"
        assert entry["prompt"][2][old] == {"class_type": "EmptyImage", "inputs": {"width": 9, "height": 8, "color": 7}}
