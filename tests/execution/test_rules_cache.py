"""What is shared and found again, and what is not, rule by rule."""

from typing import Any

import pytest

from tests.execution.running import Stage
from tests.graph.small import prompt


def changing(value: int = 1, **more: Any) -> dict[str, Any]:
    return prompt(c=("P.Changing", {"value": value}), s=("Show", {"value": ["c", 0]}), **more)


@pytest.fixture
def answers(classes: dict[str, Any]) -> list[Any]:
    given: list[Any] = classes["P.Changing"].answers
    given.clear()
    return given


def test_is_changed_is_part_of_the_key(stage: Stage, answers: list[Any]) -> None:
    answers[:] = ["one"]
    stage.run(changing())
    assert "c" not in stage.run(changing()).executed
    answers[:] = ["two"]
    assert "c" in stage.run(changing()).executed
    answers[:] = ["one"]
    assert "c" not in stage.run(changing()).executed


def test_is_changed_cannot_hide_a_changed_input(stage: Stage, answers: list[Any]) -> None:
    answers[:] = ["same"]
    stage.run(changing(1))
    assert "c" in stage.run(changing(2)).executed


@pytest.mark.parametrize("answer", [float("nan"), "raise"])
def test_nan_and_a_failure_mean_always(stage: Stage, answers: list[Any], answer: Any) -> None:
    answers[:] = [answer]
    stage.run(changing()).or_raise()
    assert "c" in stage.run(changing()).or_raise().executed


def test_is_changed_gets_none_for_links_and_is_asked_once_per_needed_node(
    stage: Stage, answers: list[Any], calls: list[Any]
) -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}),
        c=("P.Changing", {"value": 5, "other": ["a", 0]}),
        s=("Show", {"value": ["c", 0]}),
        unreachable=("P.Changing", {"value": 6}),
    )
    stage.run(document).or_raise()
    assert [call for call in calls if call[0] == "IS_CHANGED"] == [("IS_CHANGED", (5, None))]


def test_nodes_that_are_not_idempotent_share_nothing(stage: Stage, calls: list[Any]) -> None:
    document = prompt(
        a=("P.Once", {"value": 1}),
        b=("P.Once", {"value": 1}),
        s=("Show", {"value": ["a", 0]}),
        t=("Show", {"value": ["b", 0]}),
    )
    stage.run(document).or_raise()
    assert calls == [("Once", 1), ("Once", 1)]
    calls.clear()
    stage.run(document).or_raise()
    assert calls == []


def test_is_changed_sent_by_a_client_is_ignored(stage: Stage, answers: list[Any]) -> None:
    answers[:] = [1]
    stage.run(changing()).or_raise()
    answers[:] = [2]
    replayed = changing()
    replayed["c"]["is_changed"] = [1]
    assert "c" in stage.run(replayed).executed


def test_alternating_workflows_keep_both_results(stage: Stage, calls: list[Any], answers: list[Any]) -> None:
    for value in (1, 2, 1, 2):
        stage.run(changing(value)).or_raise()
    assert [call for call in calls if call[0] == "Changing"] == [("Changing", 1), ("Changing", 2)]
