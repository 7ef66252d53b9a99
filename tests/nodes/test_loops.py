"""Loops against what the same chain of nodes gives when it is written out by hand."""

import inspect
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import BadValue, NodeFailed
from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.graph.node import Output, Socket, UiResult, node
from sigmagraph.engine.graph.plan import plan
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.loop_graph import find_loop
from tests.execution.running import Stage
from tests.graph.small import checked

MOST = "at most"


def graph(mode: dict[str, Any], body: dict[str, Any], **ends: Any) -> dict[str, Any]:
    """A loop whose body is `body`; its end has `ends`, and what it gives is shown."""
    start = {"cache_iterations": False, "initial_iteration_value": ["one", 0], **mode}
    return {
        "one": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
        "start": {"class_type": "StartLoop", "inputs": start},
        **body,
        "end": {"class_type": "EndLoop", "inputs": {"accumulate": False, **ends}},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["end", 0]}},
    }


def formula(text: str, **values: Any) -> dict[str, Any]:
    inputs = {"expression": text, **{f"values.{name}": value for name, value in values.items()}}
    return {"class_type": "ComfyMathExpression", "inputs": inputs}


DOUBLED = {"twice": formula("a * 2", a=["start", 4])}
POWERS = {"output_value": ["twice", 1], "next_iteration_value": ["twice", 1]}


@pytest.fixture
def stage() -> Stage:
    return Stage(dict(NODES))


def texts(stage: Stage, document: dict[str, Any]) -> list[str]:
    return list(stage.run(document).or_raise().ui.get("shown", {}).get("text", ()))


@pytest.mark.parametrize(
    ("mode", "accumulate", "expected"),
    [
        ({"mode": "simple", "mode.num_iterations": 5}, False, ["32"]),
        ({"mode": "simple", "mode.num_iterations": 5}, True, ["2", "4", "8", "16", "32"]),
        ({"mode": "simple", "mode.num_iterations": 0}, True, []),
        ({"mode": "simple", "mode.num_iterations": ["one", 0]}, True, ["2"]),
        ({"mode": "For", "mode.start_iteration_index": 3, "mode.max_iteration": 10, "mode.step": 3}, False, ["8"]),
    ],
)
def test_a_value_is_carried_from_turn_to_turn(
    stage: Stage, mode: dict[str, Any], accumulate: bool, expected: list[str]
) -> None:
    assert texts(stage, graph(mode, DOUBLED, **POWERS, accumulate=accumulate)) == expected


def test_more_turns_than_one_list_joins(stage: Stage) -> None:
    mode = {"mode": "simple", "mode.num_iterations": 120}
    body = {"told": formula("a + 0", a=["start", 0])}
    assert texts(stage, graph(mode, body, output_value=["told", 1], accumulate=True)) == [str(n) for n in range(120)]


def test_a_turn_knows_its_place(stage: Stage) -> None:
    mode = {"mode": "For", "mode.start_iteration_index": 3, "mode.max_iteration": 10, "mode.step": 3}
    values = {f"values.{name}": ["start", slot] for slot, name in enumerate("abc")}
    told = {"class_type": "StringFormat", "inputs": {"f_string": "{a} {b} {c}", **values}}
    found = texts(stage, graph(mode, {"told": told}, output_value=["told", 0], accumulate=True))
    assert found == ["3 True False", "6 False False", "9 False True"]


def test_a_list_is_gone_through_item_by_item(stage: Stage) -> None:
    listed = {"class_type": "CreateList", "inputs": {"inputs.input0": ["one", 0], "inputs.input1": ["seven", 0]}}
    body = {
        "seven": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
        "listed": listed,
        "twice": formula("a * 2", a=["start", 3]),
    }
    mode = {"mode": "List", "mode.list": ["listed", 0]}
    assert texts(stage, graph(mode, body, output_value=["twice", 1], accumulate=True)) == ["2", "14"]


def test_a_loop_inside_a_loop_runs_in_every_turn(stage: Stage) -> None:
    inner = {
        "inner": {
            "class_type": "StartLoop",
            "inputs": {
                "mode": "simple",
                "mode.num_iterations": 2,
                "cache_iterations": False,
                "parent_iteration": ["start", 0],
                "initial_iteration_value": ["start", 4],
            },
        },
        "twice": formula("a * 2", a=["inner", 4]),
        "ended": {"class_type": "EndLoop", "inputs": {"accumulate": False, **POWERS}},
    }
    mode = {"mode": "simple", "mode.num_iterations": 3}
    document = graph(mode, inner, output_value=["ended", 0], next_iteration_value=["ended", 0], accumulate=True)
    assert texts(stage, document) == ["4", "16", "64"]


def test_what_must_run_in_every_turn_runs_and_is_not_given_back(stage: Stage) -> None:
    body = {**DOUBLED, "seen": {"class_type": "PreviewAny", "inputs": {"source": ["start", 0]}}}
    body["also"] = formula("a + 100", a=["start", 0])
    mode = {"mode": "simple", "mode.num_iterations": 3}
    document = graph(mode, body, **POWERS, **{"terminations.termination0": ["also", 1]})
    result = stage.run(document).or_raise()
    ran = [i for i, record in result.nodes.items() if i.endswith(".also") and record.outcome == "executed"]
    assert len(ran) == 3
    assert list(result.ui["shown"]["text"]) == ["8"]


@node("Shows", category="t", output_node=True, outputs=[Output("*", "value")])
def shows(*, source: Annotated[Any, Socket("*")], after: Annotated[Any, Socket("*")] = None) -> UiResult:
    """Shows a value and hands it on, as nodes that save do."""
    return UiResult(source, {"text": (str(source),)})


def seen(body: dict[str, Any], turns: int, targets: Any = None, **ends: Any) -> Mapping[str, Mapping[str, Any]]:
    """What nodes of a loop's body show, by node."""
    document = graph({"mode": "simple", "mode.num_iterations": turns}, body, **ends)
    stage = Stage({**NODES, "Shows": shows})
    made = plan(checked(document, stage.nodes), targets=targets)
    result = execute(made, None, stage.cache, stage.log.append).or_raise()
    return {name: shown["text"] for name, shown in result.ui.items() if name != "shown"}


def test_an_output_node_in_a_body_has_a_result_for_each_turn_and_none_besides() -> None:
    """It ran once more than there are turns, with the first turn's value, under its own id."""
    body = {
        "first": {"class_type": "Shows", "inputs": {"source": ["start", 0]}},
        "then": {"class_type": "Shows", "inputs": {"source": ["first", 0]}},
    }
    ends = {"output_value": ["first", 0], "terminations.termination0": ["then", 0]}
    turns = {f"end.run.{turn}.body.{name}": (str(turn),) for turn in range(3) for name in ("first", "then")}
    assert seen(body, 3, **ends) == turns
    assert seen(body, 0, **ends) == {}
    assert seen(body, 3, {"first"}, **ends) == {"first": ("0",)}, "asked for alone it sees the first turn"


def test_an_output_node_outside_of_every_turn_runs_once() -> None:
    """Before the loop, behind its start alone, or in the body of a loop that nothing asks for."""
    body = {
        "before": {"class_type": "Shows", "inputs": {"source": ["one", 0]}},
        "beside": {"class_type": "Shows", "inputs": {"source": ["start", 0]}},
        "turned": {"class_type": "Shows", "inputs": {"source": ["start", 0], "after": ["before", 0]}},
    }
    shown = seen(body, 2, output_value=["turned", 0])
    assert shown == {
        "before": ("1",),
        "beside": ("0",),
        "end.run.0.body.turned": ("0",),
        "end.run.1.body.turned": ("1",),
    }
    lost = {**body, "shown": {"class_type": "PreviewAny", "inputs": {"source": ["one", 0]}}}
    document = graph({"mode": "simple", "mode.num_iterations": 2}, body, output_value=["turned", 0]) | lost
    result = Stage({**NODES, "Shows": shows}).run(document).or_raise()
    assert result.ui["turned"]["text"] == ("0",)


def test_output_nodes_of_an_inner_loop_are_found_by_both_turns() -> None:
    inner = {
        "inner": {
            "class_type": "StartLoop",
            "inputs": {
                "mode": "simple",
                "mode.num_iterations": 2,
                "cache_iterations": False,
                "parent_iteration": ["start", 0],
            },
        },
        "told": formula("a * 10 + b", a=["start", 0], b=["inner", 0]),
        "each": {"class_type": "Shows", "inputs": {"source": ["told", 1]}},
        "ended": {"class_type": "EndLoop", "inputs": {"accumulate": False, "output_value": ["each", 0]}},
    }
    ended = {
        f"end.run.{outer}.body.ended.run.{turn}.body.end.run.{outer}.body.each": (str(10 * outer + turn),)
        for outer in range(2)
        for turn in range(2)
    }
    assert seen(inner, 2, output_value=["ended", 0]) == ended, "also in the first turn, whose result nobody reads"


@pytest.mark.parametrize("depth", [6, 24])
def test_loops_inside_each_other_end_before_their_ids_fill_the_memory(stage: Stage, depth: int) -> None:
    """Each level doubles the length of the ids: forty ended the process, with one turn each."""
    document: dict[str, Any] = {}
    for at in range(depth):
        outer = {"parent_iteration": [f"s{at - 1}", 0]} if at else {}
        once = {"mode": "simple", "mode.num_iterations": 1, "cache_iterations": False, **outer}
        document[f"s{at}"] = {"class_type": "StartLoop", "inputs": once}
    document["e"] = formula("a + 7", a=[f"s{depth - 1}", 0])
    inner = ["e", 1]
    for at in reversed(range(depth)):
        document[f"e{at}"] = {"class_type": "EndLoop", "inputs": {"accumulate": False, "output_value": inner}}
        inner = [f"e{at}", 0]
    document["shown"] = {"class_type": "PreviewAny", "inputs": {"source": inner}}
    if depth < 10:
        assert texts(stage, document) == ["7"]
    else:
        with pytest.raises(NodeFailed, match="at most 4000000; fewer loops inside each other"):
            stage.run(document).or_raise()


@pytest.mark.parametrize(("is_kept", "expected"), [(True, 2), (False, 6)])
def test_turns_are_found_again_by_their_content(stage: Stage, is_kept: bool, expected: int) -> None:
    document = graph({"mode": "simple", "mode.num_iterations": 4, "cache_iterations": is_kept}, DOUBLED, **POWERS)
    stage.run(document).or_raise()
    document["start"]["inputs"]["mode.num_iterations"] = 6
    result = stage.run(document).or_raise()
    ran = [i for i, record in result.nodes.items() if i.endswith(".twice") and record.outcome == "executed"]
    assert len(ran) == expected, "the fourth turn is the last no more, but its body does not ask"


def test_an_end_without_its_start_and_endless_turns_are_refused(stage: Stage) -> None:
    alone = graph({"mode": "simple"}, {}, output_value=["one", 0])
    with pytest.raises(NodeFailed, match="StartLoop of EndLoop"):
        stage.run(alone).or_raise()
    many = graph({"mode": "simple", "mode.num_iterations": 10**9}, DOUBLED, **POWERS)
    with pytest.raises(NodeFailed, match=MOST):
        stage.run(many).or_raise()


@pytest.mark.parametrize("outer", [False, True])
def test_what_turns_showed_is_shown_again_in_its_place_when_the_loop_is_found(outer: bool) -> None:
    """The second run named the End Loop for it, so that an endpoint had no picture to reply with."""
    body: dict[str, Any] = {"each": {"class_type": "Shows", "inputs": {"source": ["start", 0]}}}
    document = graph({"mode": "simple", "mode.num_iterations": 2}, body, output_value=["each", 0])
    if outer:
        inner = {
            "mode": "simple",
            "mode.num_iterations": 2,
            "cache_iterations": False,
            "parent_iteration": ["start", 0],
        }
        body["inner"] = {"class_type": "StartLoop", "inputs": inner}
        body["each"]["inputs"] = {"source": ["inner", 0]}
        body["ended"] = {"class_type": "EndLoop", "inputs": {"accumulate": False, "output_value": ["each", 0]}}
        document = graph({"mode": "simple", "mode.num_iterations": 2}, body, output_value=["ended", 0])
    stage = Stage({**NODES, "Shows": shows})

    def told() -> tuple[Any, set[str]]:
        result = stage.run(document).or_raise()
        ended = stage.of(events.NodeFinished)
        shown = {event.node_id: (event.display_id, event.ui) for event in ended if event.class_type == "Shows"}
        return shown, shown.keys() - result.nodes.keys()

    first = told()
    assert {display for display, _ in first[0].values()} == {"each"}
    assert told() == first == (first[0], set())


def test_a_cycle_above_an_end_is_no_endless_search() -> None:
    """Nodes that a pack makes at run time are not validated."""
    turning = {
        "a": {"class_type": "X", "inputs": {"v": ["b", 0]}},
        "b": {"class_type": "X", "inputs": {"v": ["a", 0], "s": ["start", 0]}},
    }
    ends = {
        "start": {"class_type": "StartLoop", "inputs": {}},
        "end": {"class_type": "EndLoop", "inputs": {"v": ["a", 0]}},
    }
    assert "a" in find_loop("end", {**turning, **ends}.__getitem__).body
    for first, second in (("e", "e"), ("f", "e")):  # ends that read themselves, or each other
        pair = {"e": {"class_type": "EndLoop", "inputs": {"x": [first, 0]}}}
        pair["f"] = {"class_type": "EndLoop", "inputs": {"x": [second, 0]}}
        with pytest.raises(BadValue, match="the StartLoop of EndLoop [ef]: .none. is not allowed"):
            find_loop("e", pair.__getitem__)


def test_a_chain_of_many_loops_is_followed_without_recursion() -> None:
    chain: dict[str, Any] = {}
    for at in range(400):
        before = {"after": [f"e{at - 1}", 0]} if at else {}
        chain[f"s{at}"] = {"class_type": "StartLoop", "inputs": before}
        chain[f"e{at}"] = {"class_type": "EndLoop", "inputs": {"v": [f"s{at}", 0]}}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 120)
    try:
        assert find_loop("e399", chain.__getitem__).start_id == "s399"
    finally:
        sys.setrecursionlimit(limit)
