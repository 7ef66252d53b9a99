"""What the engine reads from node classes of the convention: declarations, hidden inputs, instances, return values."""

from typing import Any

import pytest

from sigmagraph.engine.errors import NodeFailed
from sigmagraph.engine.execution import events
from sigmagraph.engine.graph.node import Node
from tests.execution.running import Stage
from tests.graph.small import prompt


def shown(kind: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return prompt(n=(kind, inputs), s=("Show", {"value": ["n", 0]}), **more)


def test_a_class_declares_itself_as_its_attributes_say(nodes: dict[str, Node]) -> None:
    assert nodes["P.Concat"].object_info() == {
        "input": {
            "required": {"a": ["STRING", {"default": "x", "multiline": True}], "b": ["STRING", {"forceInput": True}]},
            "optional": {"mode": [["plain", "loud"], {"default": "plain"}], "n": ["INT", {"min": 0, "max": 9}]},
        },
        "input_order": {"required": ["a", "b"], "optional": ["mode", "n"]},
        "output": ["STRING"],
        "output_is_list": [False],
        "output_name": ["text"],
        "name": "P.Concat",
        "display_name": "Concatenate",
        "description": "Puts texts together",
        "python_module": "custom_nodes.rules",
        "category": "rules",
        "output_node": False,
    }


def test_a_combo_output_is_declared_as_its_options(nodes: dict[str, Node]) -> None:
    assert nodes["P.Picks"].object_info()["output"] == [["a", "b"]]
    assert nodes["P.Picks"].object_info()["input"]["required"]["one"] == ["COMBO", {"options": ["a", "b"]}]


def test_an_absent_optional_input_is_not_passed_and_no_default_is_applied(stage: Stage, calls: list[Any]) -> None:
    stage.run(shown("P.Concat", {"a": "x", "b": "y"})).or_raise()
    assert calls == [("Concat", ("x", "y", "plain", None))]


def test_hidden_inputs_are_filled_in_by_tag(stage: Stage) -> None:
    document = shown("P.Secrets", {"free": 5})
    result = stage.run(document, extra_pnginfo={"workflow": {"nodes": []}}, api_key_comfy_org="k").or_raise()
    hidden = result.ui["s"]["shown"][0]
    assert hidden["unique_id"] == "n"
    assert hidden["prompt"] == document
    assert hidden["extra_pnginfo"] == {"workflow": {"nodes": []}}
    assert hidden["api_key_comfy_org"] == "k"
    assert hidden["dynprompt"].get_node("s")["class_type"] == "Show"
    assert hidden["dynprompt"].all_node_ids() == {"n", "s"}


def test_a_hidden_entry_with_another_tag_is_an_unvalidated_optional_input(stage: Stage) -> None:
    assert stage.shown(shown("P.Secrets", {"free": 5}))[0]["free"] == 5
    assert "free" not in stage.shown(shown("P.Secrets", {}))[0]


def test_an_undeclared_link_is_passed_and_an_undeclared_literal_is_not(stage: Stage) -> None:
    document = shown("P.Anything", {"known": 1, "literal": 2, "linked": ["a", 0]}, a=("Add", {"a": 1, "b": 2}))
    assert stage.shown(document) == [{"known": 1, "linked": 3}]


def test_an_undeclared_literal_is_part_of_the_key_all_the_same(stage: Stage) -> None:
    stage.run(shown("P.Anything", {"known": 1, "literal": 2}))
    assert "n" in stage.run(shown("P.Anything", {"known": 1, "literal": 3})).executed


def test_an_instance_is_kept_per_node_and_class(stage: Stage) -> None:
    assert [stage.shown(shown("P.State", {"value": value})) for value in (1, 2, 3)] == [[1], [2], [3]]
    renamed = prompt(other=("P.State", {"value": 4}), s=("Show", {"value": ["other", 0]}))
    assert stage.shown(renamed) == [1]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ((1, 2), [[1], [2]]),
        ([1, 2], [[1], [2]]),
        ("ab", [["a"], ["b"]]),
        ((1, 2, 3), [[1], [2]]),
        ((1,), [[1], [None]]),
        ({"result": (1, 2)}, [[1], [2]]),
        ({"ui": {"texts": ["x"]}}, [[None], [None]]),
    ],
)
def test_return_values_are_read_by_position(
    stage: Stage, classes: dict[str, Any], returned: Any, expected: list[Any]
) -> None:
    classes["P.Returns"].value = returned
    result = stage.run(
        prompt(r=("P.Returns", {}), s=("Show", {"value": ["r", 0]}), t=("Show", {"value": ["r", 1]}))
    ).or_raise()
    assert [result.ui["s"]["shown"], result.ui["t"]["shown"]] == expected


@pytest.mark.parametrize("returned", [None, 5])
def test_returning_nothing_or_a_number_is_a_type_error(stage: Stage, classes: dict[str, Any], returned: Any) -> None:
    classes["P.Returns"].value = returned
    result = stage.run(shown("P.Returns", {}))
    assert isinstance(result.error, NodeFailed)
    assert isinstance(result.error.__cause__, TypeError)


def test_progress_bars_report_for_the_node_that_makes_them(stage: Stage) -> None:
    stage.run(shown("P.Sleeps", {"steps": 3, "milliseconds": 0})).or_raise()
    assert [(e.node_id, e.value, e.maximum) for e in stage.of(events.NodeProgress)] == [
        ("n", 1, 3),
        ("n", 2, 3),
        ("n", 3, 3),
    ]


def test_progress_by_the_versioned_api_reports_too(stage: Stage) -> None:
    stage.run(shown("P.Reports", {"steps": 2})).or_raise()
    assert [(e.value, e.maximum) for e in stage.of(events.NodeProgress)] == [(1, 2), (2, 2)]


def test_a_cancel_is_noticed_inside_a_blocking_node_that_reports_progress(stage: Stage) -> None:
    result = stage.run(
        shown("P.Sleeps", {"steps": 50, "milliseconds": 1}), lambda: len(stage.of(events.NodeProgress)) >= 4
    )
    assert result.is_cancelled
    assert len(stage.of(events.NodeProgress)) == 4
    assert len(stage.cache) == 0


def test_an_edit_in_place_harms_neither_the_cache_nor_the_other_consumers(stage: Stage, calls: list[Any]) -> None:
    document = prompt(
        m=("P.MakesList", {"value": 1}),
        e=("P.Edits", {"items": ["m", 0]}),
        f=("P.Edits", {"items": ["m", 0], "x": 1}),
        s=("Show", {"value": ["e", 0]}),
        t=("Show", {"value": ["f", 0]}),
        u=("Show", {"value": ["m", 0]}),
    )
    for _ in range(2):
        ui = stage.run(document).or_raise().ui
        assert [ui[i]["shown"] for i in "stu"] == [[[1, "edited"]], [[1, "edited"]], [[1]]]
    assert [name for name, _ in calls if name == "MakesList"] == ["MakesList"]
