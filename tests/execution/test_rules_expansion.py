"""Run-time expansion and what follows from it, rule by rule."""

from typing import Any

import pytest

from sigmagraph.engine.errors import DuplicateName, NodeFailed
from sigmagraph.engine.execution import events
from sigmagraph.engine.graph.node import Expansion, Node, node
from tests.execution.running import Stage, with_nodes
from tests.graph.small import prompt


def twice(value: Any = 5, **more: Any) -> dict[str, Any]:
    return prompt(t=("P.Twice", {"value": value}), s=("Show", {"value": ["t", 0]}), **more)


def expands(stage: Stage, classes: dict[str, Any], graph: Any, result: Any) -> Any:
    classes["P.Expands"].graph, classes["P.Expands"].result = graph, result
    return stage.run(prompt(e=("P.Expands", {}), s=("Show", {"value": ["e", 0]})))


def test_an_expanding_node_gives_what_its_new_nodes_give(stage: Stage) -> None:
    assert stage.shown(twice()) == [7]


def test_new_nodes_are_named_after_parent_call_graph_and_number(stage: Stage) -> None:
    stage.run(twice()).or_raise()
    (event,) = stage.of(events.NodeExpanded)
    assert (event.node_id, event.new_ids) == ("t", ["t.0.0.1", "t.0.0.2"])


def test_new_nodes_are_shown_at_the_node_they_came_from(stage: Stage) -> None:
    stage.run(twice()).or_raise()
    assert [(e.node_id, e.display_id) for e in stage.of(events.NodeStarted)][1] == ("t.0.0.1", "t")


def test_each_call_over_a_list_expands_on_its_own(stage: Stage) -> None:
    assert stage.shown(twice(["r", 0], r=("P.Range", {"start": 1, "count": 3}))) == [3, 4, 5]


def test_a_second_run_finds_the_expanded_result_without_expanding(stage: Stage, calls: list[Any]) -> None:
    stage.run(twice()).or_raise()
    calls.clear()
    assert stage.run(twice()).executed == ["s"]
    assert calls == []


def test_equal_new_nodes_are_found_in_the_cache_whatever_made_them(stage: Stage) -> None:
    stage.run(prompt(a=("Add", {"a": 5, "b": 1}), s=("Show", {"value": ["a", 0]}))).or_raise()
    result = stage.run(twice(5)).or_raise()
    assert result.nodes["t.0.0.1"].outcome == "memory"


def test_output_nodes_inside_run_and_show_what_they_got(stage: Stage, calls: list[Any]) -> None:
    document = prompt(i=("P.ShowInside", {"value": 4}), s=("Show", {"value": ["i", 1]}))
    assert stage.run(document).or_raise().ui == {"i.0.0.1": {"shown": [4]}, "s": {"shown": [7]}}


def test_a_cached_expansion_shows_again_what_its_inner_outputs_showed(stage: Stage) -> None:
    document = prompt(i=("P.ShowInside", {"value": 4}), s=("Show", {"value": ["i", 1]}))
    stage.run(document).or_raise()
    assert stage.run(document).or_raise().ui == {"i.0.0.1": {"shown": [4]}, "s": {"shown": [7]}}


def test_a_linked_list_stays_in_its_own_slot(stage: Stage) -> None:
    document = prompt(
        i=("P.ShowInside", {"value": 4}), s=("Show", {"value": ["i", 0]}), t=("Show", {"value": ["i", 1]})
    )
    ui = stage.run(document).or_raise().ui
    assert (ui["s"]["shown"], ui["t"]["shown"]) == ([4, 5, 6], [7])


def test_a_loop_built_from_expansions_runs_and_knows_its_real_node(stage: Stage) -> None:
    document = prompt(
        c=("P.Countdown", {"count": 10, "total": 0}), s=("Show", {"value": ["c", 0]}), t=("Show", {"value": ["c", 1]})
    )
    ui = stage.run(document).or_raise().ui
    assert (ui["s"]["shown"], ui["t"]["shown"]) == ([55], ["c"])


def test_a_raw_link_arrives_as_a_link_after_its_source_has_run(
    stage: Stage, classes: dict[str, Any], calls: list[Any]
) -> None:
    classes["P.Expands"].graph, classes["P.Expands"].result = {}, (["a", 0],)
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), e=("P.Expands", {"value": ["a", 0]}), s=("Show", {"value": ["e", 0]})
    )
    assert stage.shown(document) == [2]
    assert calls == [("Expands", (["a", 0], True))]


def test_a_result_may_mix_values_and_links(stage: Stage, classes: dict[str, Any]) -> None:
    assert expands(stage, classes, {}, (42,)).ui["s"] == {"shown": [42]}


def test_ids_that_exist_already_are_refused(stage: Stage, classes: dict[str, Any]) -> None:
    error = expands(stage, classes, {"s": {"class_type": "Add", "inputs": {}}}, (["s", 0],)).error
    assert isinstance(error.__cause__, DuplicateName)


def test_an_unknown_class_in_an_expansion_fails_the_node_and_offers_the_nearest(
    stage: Stage, classes: dict[str, Any]
) -> None:
    error = expands(stage, classes, {"x": {"class_type": "Addd", "inputs": {}}}, (["x", 0],)).error
    assert str(error) == "node e (P.Expands): 'Addd' is not a known node class; did you mean 'Add'?"


def test_a_failure_inside_is_blamed_on_the_node_of_the_prompt(stage: Stage, classes: dict[str, Any]) -> None:
    error = expands(stage, classes, {"x": {"class_type": "Add", "inputs": {"a": "one", "b": 1}}}, (["x", 0],)).error
    assert isinstance(error, NodeFailed)
    assert error.node_id == "e"
    (event,) = stage.of(events.RunFailed)
    assert (event.node_id, event.inner_id, event.class_type) == ("e", "x", "Add")


def test_a_cycle_made_at_run_time_is_reported(stage: Stage, classes: dict[str, Any]) -> None:
    graph = {
        "x": {"class_type": "Add", "inputs": {"a": ["y", 0], "b": 1}},
        "y": {"class_type": "Add", "inputs": {"a": ["x", 0], "b": 1}},
    }
    result = expands(stage, classes, graph, (["x", 0],))
    assert str(result.error) == "node e (P.Expands): dependency cycle detected"
    (event,) = stage.of(events.RunFailed)
    assert event.message == "Dependency cycle detected"


def test_a_node_that_returns_its_own_output_is_a_cycle(stage: Stage, classes: dict[str, Any]) -> None:
    assert "dependency cycle detected" in str(expands(stage, classes, {}, (["e", 0],)).error)


def test_a_display_id_can_be_overridden(stage: Stage, classes: dict[str, Any]) -> None:
    graph = {"x": {"class_type": "Add", "inputs": {"a": 1, "b": 1}, "override_display_id": "s"}}
    expands(stage, classes, graph, (["x", 0],)).or_raise()
    assert {e.node_id: e.display_id for e in stage.of(events.NodeStarted)}["x"] == "s"


def test_wrapped_lists_in_an_expansion_are_unwrapped(stage: Stage, classes: dict[str, Any]) -> None:
    graph = {"x": {"class_type": "P.Pair", "inputs": {"a": {"__value__": [1, 2]}, "b": 1}}}
    assert expands(stage, classes, graph, (["x", 0],)).or_raise().ui["s"] == {"shown": ["[1, 2]-1"]}


def test_an_expansion_may_link_to_a_node_nobody_needed_before(stage: Stage, classes: dict[str, Any]) -> None:
    classes["P.Expands"].graph, classes["P.Expands"].result = {}, (["far", 0],)
    document = prompt(
        far=("Add", {"a": ["near", 0], "b": 1}),
        near=("Add", {"a": 1, "b": 1}),
        e=("P.Expands", {}),
        s=("Show", {"value": ["e", 0]}),
    )
    assert stage.shown(document) == [3]


def test_typed_functions_expand_too() -> None:
    @node("Later", category="test", outputs=("INT",))
    def later(*, value: int = 0) -> Any:
        """Adds one, later."""
        return Expansion({"later": {"class_type": "Add", "inputs": {"a": value, "b": 1}}}, (["later", 0],))

    made: dict[str, Node] = with_nodes(later)
    assert Stage(made).shown(prompt(n=("Later", {"value": 2}), s=("Show", {"value": ["n", 0]}))) == [3]


@pytest.mark.parametrize("count", [400])
def test_long_loops_do_not_recurse(stage: Stage, count: int) -> None:
    document = prompt(c=("P.Countdown", {"count": count, "total": 0}), s=("Show", {"value": ["c", 0]}))
    assert stage.shown(document) == [count * (count + 1) // 2]
