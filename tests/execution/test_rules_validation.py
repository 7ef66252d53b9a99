"""Validation rules that only classes of the convention can show."""

from typing import Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.problems import Problem
from tests.execution.running import Stage
from tests.graph.small import checked, prompt


def problems(nodes: dict[str, Node], **made: Any) -> list[Problem]:
    with pytest.raises(InvalidWorkflow) as caught:
        checked(prompt(**made), nodes)
    found: list[Problem] = list(caught.value.problems)
    return found


def check_name(name: str, **inputs: Any) -> dict[str, Any]:
    values = {"name": name, "size": 1, "link": ["a", 0], **inputs}
    return {
        "a": ("Join", {"first": "x", "second": "y"}),
        "n": ("P.Checked", values),
        "s": ("Show", {"value": ["n", 0]}),
    }


def test_validate_inputs_gets_literals_converted_links_as_none_and_the_hidden_id(
    nodes: dict[str, Node], calls: list[Any]
) -> None:
    checked(prompt(**check_name("anything at all")), nodes)
    assert calls == [("VALIDATE_INPUTS", ("anything at all", None, "n"))]


def test_an_input_that_validate_inputs_takes_is_not_checked_against_its_list_and_others_are(
    nodes: dict[str, Node],
) -> None:
    assert [p.code for p in problems(nodes, **check_name("not in the list", size=9))] == ["value_bigger_than_max"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no", "refused by the node's own check of name, link"),
        ("why", "refused by the node's own check of name, link: because"),
        ("none", "refused by the node's own check of name, link: None"),
    ],
)
def test_anything_but_true_is_one_problem_with_its_reason(nodes: dict[str, Node], name: str, message: str) -> None:
    (problem,) = problems(nodes, **check_name(name))
    assert (problem.code, problem.node_id, problem.message) == ("custom_validation_failed", "n", message)


def test_validate_inputs_that_raises_is_a_problem_of_its_node(nodes: dict[str, Node]) -> None:
    (problem,) = problems(nodes, **check_name("raise"))
    assert (problem.code, problem.message) == (
        "exception_during_validation",
        "validation raised RuntimeError: cannot tell",
    )


def test_a_class_that_takes_input_types_decides_about_its_links(nodes: dict[str, Node]) -> None:
    text = {"a": ("Join", {"first": "x", "second": "y"}), "s": ("Show", {"value": ["n", 0]})}
    assert checked(prompt(**text, n=("P.TakesTypes", {"value": ["a", 0]})), nodes).roots == ["s"]
    number = {"a": ("Add", {"a": 1, "b": 1}), "s": ("Show", {"value": ["n", 0]})}
    (problem,) = problems(nodes, **number, n=("P.TakesTypes", {"value": ["a", 0]}))
    assert problem.message.endswith(": not INT")


def test_a_wildcard_made_of_a_text_that_differs_from_nothing_takes_every_link(stage: Stage) -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), p=("P.Pair", {"a": ["a", 0], "b": 2}), s=("Show", {"value": ["p", 0]})
    )
    assert stage.shown(document) == ["2-2"]


def test_a_union_takes_each_of_its_members(nodes: dict[str, Node]) -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), n=("P.Abstract", {"value": ["a", 0]}), s=("Show", {"value": ["n", 0]})
    )
    assert checked(document, nodes).roots == ["s"]


def test_a_combo_declared_by_name_is_not_checked_and_one_declared_by_list_is(nodes: dict[str, Node]) -> None:
    assert checked(prompt(n=("P.Picks", {"one": "z", "two": "a"}), s=("Show", {"value": ["n", 0]})), nodes).roots == [
        "s"
    ]
    (problem,) = problems(nodes, n=("P.Picks", {"one": "a", "two": "z"}), s=("Show", {"value": ["n", 0]}))
    assert (problem.code, problem.input) == ("value_not_in_list", "two")


def test_a_literal_may_stand_at_a_socket_of_a_class_of_others(stage: Stage) -> None:
    assert stage.shown(
        prompt(
            n=("P.TakesTypes", {"value": ["j", 0]}),
            j=("Join", {"first": "x", "second": ""}),
            s=("Show", {"value": ["n", 0]}),
        )
    ) == ["<x>"]


def test_wrapped_lists_are_unwrapped_for_declared_inputs(stage: Stage) -> None:
    document = prompt(p=("P.Pair", {"a": {"__value__": ["x", 0]}, "b": 1}), s=("Show", {"value": ["p", 0]}))
    assert stage.shown(document) == ["['x', 0]-1"]
