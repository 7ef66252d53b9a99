"""Lists, lazy inputs, blockers and async calls, rule by rule."""

from typing import Any

from sigmagraph.engine.errors import NodeFailed
from sigmagraph.engine.execution import events
from tests.execution.running import Stage
from tests.graph.small import prompt


def ranges(**counts: int) -> dict[str, Any]:
    return {name: ("P.Range", {"start": 1, "count": count}) for name, count in counts.items()}


def paired(a: Any, b: Any, **more: Any) -> dict[str, Any]:
    return prompt(p=("P.Pair", {"a": a, "b": b}), s=("Show", {"value": ["p", 0]}), **more)


# -- lists


def test_a_node_is_called_once_per_element_of_the_longest_list(stage: Stage) -> None:
    assert stage.shown(paired(["r", 0], "x", **ranges(r=3))) == ["1-x", "2-x", "3-x"]


def test_a_shorter_list_repeats_its_last_element(stage: Stage) -> None:
    assert stage.shown(paired(["r", 0], ["q", 0], **ranges(r=3, q=2))) == ["1-1", "2-2", "3-2"]


def test_an_empty_list_means_no_calls_and_empty_outputs(stage: Stage, calls: list[Any]) -> None:
    assert stage.run(paired(["r", 0], "x", **ranges(r=0))).or_raise().ui == {}
    assert not [name for name, _ in calls if name == "Pair"]


def test_a_list_output_is_laid_flat_over_several_calls(stage: Stage) -> None:
    document = prompt(
        r=("P.Range", {"start": 1, "count": 2}),
        q=("P.Range", {"start": ["r", 0], "count": 2}),
        s=("Show", {"value": ["q", 0]}),
    )
    assert stage.shown(document) == [1, 2, 2, 3]


def test_a_node_that_takes_lists_is_called_once_with_literals_and_hidden_values_in_lists(stage: Stage) -> None:
    document = prompt(g=("P.Gather", {"values": ["r", 0], "sep": "+"}), s=("Show", {"value": ["g", 0]}), **ranges(r=3))
    assert stage.shown(document) == ["1+2+3@gx1"]


def test_a_node_that_takes_lists_is_called_for_an_empty_one(stage: Stage) -> None:
    document = prompt(g=("P.Gather", {"values": ["r", 0], "sep": "+"}), s=("Show", {"value": ["g", 0]}), **ranges(r=0))
    assert stage.shown(document) == ["@gx1"]


def test_the_ui_of_several_calls_is_put_behind_each_other(stage: Stage) -> None:
    assert stage.run(paired(["r", 0], "x", **ranges(r=3))).or_raise().ui["p"] == {"pairs": ["1-x", "2-x", "3-x"]}


def test_an_output_the_source_did_not_fill_reads_as_none(stage: Stage, classes: dict[str, Any]) -> None:
    classes["P.Returns"].value = (1,)
    assert stage.shown(paired(["r", 1], "x", r=("P.Returns", {}))) == ["None-x"]


# -- lazy inputs


def switched(which: bool, **more: Any) -> dict[str, Any]:
    sides = {"y": ("P.Pair", {"a": "y", "b": 1}), "n": ("P.Pair", {"a": "n", "b": 1})}
    return prompt(
        w=("P.Switch", {"which": which, "yes": ["y", 0], "no": ["n", 0]}),
        s=("Show", {"value": ["w", 0]}),
        **sides,
        **more,
    )


def test_only_the_lazy_input_that_is_asked_for_is_evaluated(stage: Stage, calls: list[Any]) -> None:
    assert stage.shown(switched(True)) == ["y-1"]
    assert [name for name, _ in calls] == ["check_lazy_status", "Pair", "check_lazy_status", "Switch"]
    assert calls[0][1] == (True, None, None)
    assert calls[2][1] == (True, "y-1", None)
    assert calls[3][1] == (True, "y-1", None)


def test_the_report_says_that_the_other_side_was_not_needed(stage: Stage) -> None:
    assert stage.run(switched(False)).nodes["y"].outcome == "unneeded"


def test_a_value_that_happens_to_be_there_is_not_passed_unless_asked_for(stage: Stage, calls: list[Any]) -> None:
    document = prompt(
        n=("P.Pair", {"a": "n", "b": 1}),
        gate=("P.Pair", {"a": ["n", 0], "b": 0}),
        w=("P.Switch", {"which": True, "yes": ["gate", 0], "no": ["n", 0]}),
        s=("Show", {"value": ["w", 0]}),
    )
    stage.run(document).or_raise()
    assert calls[-1] == ("Switch", (True, "n-1-0", None))


def test_a_lazy_input_nobody_asks_for_is_none(stage: Stage) -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), z=("P.LazyWithoutQuestion", {"value": ["a", 0]}), s=("Show", {"value": ["z", 0]})
    )
    result = stage.run(document).or_raise()
    assert result.ui["s"]["shown"] == [None]
    assert "a" not in result.executed


def test_asking_for_an_input_that_does_not_exist_fails_the_node(stage: Stage) -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 1}), z=("P.LazyWrong", {"value": ["a", 0]}), s=("Show", {"value": ["z", 0]})
    )
    assert "'valu' is not allowed; expected one of ['value']" in str(stage.run(document).error)


def test_a_lazy_node_is_announced_once(stage: Stage) -> None:
    stage.run(switched(True)).or_raise()
    assert [event.node_id for event in stage.of(events.NodeStarted)] == ["w", "y", "s"]


# -- blockers


def blocked(message: str = "", count: int = 1) -> dict[str, Any]:
    return prompt(
        r=("P.Range", {"start": 1, "count": count}),
        b=("P.Block", {"value": ["r", 0], "message": message}),
        p=("P.Pair", {"a": ["b", 0], "b": "x"}),
        q=("P.Pair", {"a": ["p", 0], "b": "y"}),
        s=("Show", {"value": ["q", 0]}),
        t=("Show", {"value": ["r", 0]}),
    )


def test_a_blocker_fades_out_a_branch_and_leaves_the_others(stage: Stage, calls: list[Any]) -> None:
    result = stage.run(blocked()).or_raise()
    assert result.ui == {"t": {"shown": [1]}}
    assert not [name for name, _ in calls if name == "Pair"]


def test_other_elements_of_a_list_go_on(stage: Stage) -> None:
    assert stage.run(blocked(count=4)).or_raise().ui["s"] == {"shown": ["2-x-y", "4-x-y"]}


def test_a_message_is_reported_once_by_the_first_node_it_stops_and_the_run_succeeds(stage: Stage) -> None:
    result = stage.run(blocked("stop here"))
    assert result.error is None
    assert [(e.node_id, e.message) for e in stage.of(events.NodeBlocked)] == [("p", "stop here")]
    assert stage.of(events.RunSucceeded)


def test_a_list_node_is_blocked_by_a_blocker_inside_its_list(stage: Stage) -> None:
    document = prompt(
        r=("P.Range", {"start": 1, "count": 2}),
        b=("P.Block", {"value": ["r", 0], "message": ""}),
        g=("P.Gather", {"values": ["b", 0], "sep": "+"}),
        s=("Show", {"value": ["g", 0]}),
    )
    assert stage.run(document).or_raise().ui == {}


def test_blocked_nodes_count_as_executed_and_are_cached(stage: Stage) -> None:
    assert {"p", "q"} <= set(stage.run(blocked()).executed)
    assert {"p", "q"}.isdisjoint(stage.run(blocked()).executed)


# -- async nodes


def waits(**milliseconds: int) -> dict[str, Any]:
    return {
        name: ("P.AsyncAdd", {"a": index, "milliseconds": ms}) for index, (name, ms) in enumerate(milliseconds.items())
    }


def test_an_async_node_gives_its_result(stage: Stage) -> None:
    assert stage.shown(prompt(s=("Show", {"value": ["a", 0]}), **waits(a=1))) == [1]


def test_async_nodes_wait_side_by_side(stage: Stage, calls: list[Any]) -> None:
    shows = {f"s{name}": ("Show", {"value": [name, 0]}) for name in "abcd"}
    stage.run(prompt(**waits(a=100, b=100, c=100, d=100), **shows)).or_raise()
    assert [name for name, _ in calls] == ["AsyncAdd begins"] * 4 + ["AsyncAdd ends"] * 4


def test_the_calls_of_one_async_node_over_a_list_run_at_the_same_time(stage: Stage, calls: list[Any]) -> None:
    document = prompt(
        a=("P.AsyncAdd", {"a": ["r", 0], "milliseconds": 100}), s=("Show", {"value": ["a", 0]}), **ranges(r=4)
    )
    assert stage.shown(document) == [2, 3, 4, 5]
    assert [name for name, _ in calls] == ["AsyncAdd begins"] * 4 + ["AsyncAdd ends"] * 4


def test_other_nodes_run_while_an_async_one_waits(stage: Stage, calls: list[Any]) -> None:
    document = prompt(
        a=("P.AsyncAdd", {"a": 1, "milliseconds": 100}),
        p=("P.Pair", {"a": 1, "b": 2}),
        s=("Show", {"value": ["a", 0]}),
        t=("Show", {"value": ["p", 0]}),
    )
    stage.run(document).or_raise()
    names = [name for name, _ in calls]
    assert names.index("Pair") < names.index("AsyncAdd ends")


def test_an_async_failure_fails_the_run_at_its_node(stage: Stage) -> None:
    result = stage.run(prompt(a=("P.AsyncAdd", {"a": -1, "milliseconds": 0}), s=("Show", {"value": ["a", 0]})))
    assert isinstance(result.error, NodeFailed)
    assert str(result.error) == "node a (P.AsyncAdd): negative"


def test_a_node_that_only_waits_is_cancelled_at_once(stage: Stage, calls: list[Any]) -> None:
    document = prompt(a=("P.AsyncAdd", {"a": 1, "milliseconds": 60_000}), s=("Show", {"value": ["a", 0]}))
    result = stage.run(document, lambda: ("AsyncAdd begins", 1) in calls)
    assert result.is_cancelled
    assert calls[-1] == ("AsyncAdd cancelled", 1)


def test_tasks_still_waiting_when_a_run_ends_are_cancelled(stage: Stage, calls: list[Any]) -> None:
    document = prompt(
        a=("P.AsyncAdd", {"a": 1, "milliseconds": 60_000}),
        b=("P.AsyncAdd", {"a": -1, "milliseconds": 0}),
        s=("Show", {"value": ["a", 0]}),
        t=("Show", {"value": ["b", 0]}),
    )
    assert str(stage.run(document).error) == "node b (P.AsyncAdd): negative"
    assert ("AsyncAdd cancelled", 1) in calls
