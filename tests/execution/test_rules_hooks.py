"""What classes of the convention are asked and with which arguments; what they return that nobody can read."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sigmagraph.engine.errors import InvalidWorkflow, NodeFailed
from sigmagraph.engine.execution.calling.context import CURRENT, CallContext
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.packs.graph_utils import GraphBuilder
from sigmagraph.engine.graph.node import Node, Progress, node
from sigmagraph.engine.graph.plan import plan
from tests.execution.running import Stage
from tests.graph.small import checked, prompt


def asynchronous(pick: str, **more: Any) -> dict[str, Any]:
    return prompt(
        a=("Add", {"a": 1, "b": 1}),
        b=("Add", {"a": 2, "b": 2}),
        n=("P.AsyncHooks", {"a": ["a", 0], "b": ["b", 0], "pick": pick, **more}),
        s=("Show", {"value": ["n", 0]}),
    )


def test_every_function_of_a_class_may_be_async(stage: Stage, calls: list[Any]) -> None:
    result = stage.run(asynchronous("b")).or_raise()
    assert result.ui["s"]["shown"] == [4]
    assert result.nodes["a"].outcome == "unneeded"
    assert [name for name, _ in calls].count("check_lazy_status") == 2


def test_an_async_refusal_is_a_problem_too(nodes: dict[str, Node]) -> None:
    with pytest.raises(InvalidWorkflow, match="refused by the node's own check"):
        checked(asynchronous("z"), nodes)


def test_a_check_that_takes_everything_gets_all_inputs_present_and_hidden_values_as_they_are_before_a_run(
    stage: Stage, calls: list[Any]
) -> None:
    stage.run(asynchronous("a", undeclared=5)).or_raise()
    hidden = {"me": "n", "prompt": {}, "all": None, "info": None}
    expected = {"a": None, "b": None, "pick": "a", **hidden}
    asked = {name: given for name, given in calls if name in ("VALIDATE_INPUTS", "IS_CHANGED")}
    assert {name: {k: v for k, v in given.items() if k != "undeclared"} for name, given in asked.items()} == {
        "VALIDATE_INPUTS": expected,
        "IS_CHANGED": expected,
    }


def test_display_attributes_reach_the_editor(nodes: dict[str, Node]) -> None:
    info = nodes["P.AsyncHooks"].object_info()
    assert (info["deprecated"], info["experimental"], info["output_tooltips"]) == (True, True, ["what it chose"])


def test_a_value_under_a_hidden_tag_is_overwritten(stage: Stage) -> None:
    document = prompt(n=("P.Secrets", {"unique_id": "forged", "free": 1}), s=("Show", {"value": ["n", 0]}))
    assert stage.shown(document)[0]["unique_id"] == "n"


def test_a_lazy_input_of_a_class_that_takes_lists_is_a_list_of_none_until_asked_for(
    stage: Stage, calls: list[Any]
) -> None:
    document = prompt(
        r=("P.Range", {"start": 5, "count": 2}),
        n=("P.LazyGather", {"first": ["r", 0], "second": ["r", 0]}),
        s=("Show", {"value": ["n", 0]}),
    )
    assert stage.shown(document) == [([5, 6], [None])]
    assert [given for name, given in calls if name == "check_lazy_status"] == [([None], [None]), ([5, 6], [None])]


def test_lazy_inputs_are_asked_for_per_element_and_names_that_are_there_already_are_ignored(
    stage: Stage, calls: list[Any]
) -> None:
    document = prompt(
        r=("P.Range", {"start": 0, "count": 3}),
        o=("Add", {"a": 7, "b": 0}),
        n=("P.LazyEach", {"number": ["r", 0], "other": ["o", 0]}),
        s=("Show", {"value": ["n", 0]}),
    )
    assert stage.shown(document) == [(0, 7), (1, 7), (2, 7)]
    assert [given for name, given in calls if name == "check_lazy_status"] == [
        *((number, None) for number in range(3)),
        *((number, 7) for number in range(3)),
    ]


def test_asking_for_an_absent_optional_input_fails_the_node(stage: Stage) -> None:
    document = asynchronous("c")
    error = stage.run(document).error
    assert isinstance(error, NodeFailed)
    assert "check_lazy_status" in str(error)


def test_the_ui_of_several_calls_has_the_keys_of_the_first(stage: Stage) -> None:
    document = prompt(r=("P.Range", {"start": 0, "count": 3}), u=("P.UiEach", {"value": ["r", 0]}))
    assert stage.run(document).or_raise().ui["u"] == {"numbers": [0, 1, 2]}


def test_a_check_that_takes_everything_stands_for_the_range_of_every_input(nodes: dict[str, Node]) -> None:
    document = prompt(n=("P.ChecksAll", {"size": 99}), s=("Show", {"value": ["n", 0]}))
    assert checked(document, nodes).nodes["n"].inputs == {"size": 99}


def test_a_source_behind_an_undeclared_link_is_validated_too(nodes: dict[str, Node]) -> None:
    document = prompt(
        b=("Add", {"a": 1, "b": 10_000}),
        n=("P.Anything", {"known": 1, "extra": ["b", 0]}),
        s=("Show", {"value": ["n", 0]}),
    )
    with pytest.raises(InvalidWorkflow, match=r"node b \(Add\)\.b: 10000 is bigger than 1000"):
        checked(document, nodes)


def test_every_step_of_a_node_runs_inside_what_the_driver_enters(stage: Stage, nodes: dict[str, Node]) -> None:
    """Entered afresh for each step, so that nothing of it is left on while a node waits for its turn."""
    inside: list[bool] = []
    entered = threading.local()

    @contextmanager
    def around() -> Iterator[None]:
        entered.is_on = True
        try:
            yield
        finally:
            entered.is_on = False

    @node("Looks", category="test", lane="device")
    def looks(*, steps: int = 3) -> Generator[Progress, None, int]:
        """Looks whether it is inside."""
        for step in range(steps):
            inside.append(getattr(entered, "is_on", False))
            yield Progress(step + 1, steps)
        return steps

    made = plan(checked(prompt(k=("Looks", {"steps": 3}), s=("Show", {"value": ["k", 0]})), {**nodes, "Looks": looks}))
    execute(made, around=around).or_raise()
    scheduler = Scheduler(around=around)
    scheduler.submit(made).wait(10).or_raise()
    scheduler.close()
    assert inside == [True] * 6
    assert not entered.is_on


UNREADABLE = [
    ("P.Nothing", None, "the node returned NoneType; expected a tuple with one value per output"),
    ("P.Nothing", 5, "the node returned int; expected a tuple"),
    ("P.Nothing", {"ui": 5}, "the node returned int as ui; expected an object of lists"),
    ("P.Nothing", {"ui": ["a"]}, "the node returned list as ui"),
    ("P.Nothing", {"result": 5}, "the node returned int; expected a tuple"),
    ("P.Nothing", {"expand": "x", "result": (1,)}, "the node expanded into str with tuple; expected an object"),
    ("P.Nothing", {"expand": {}, "result": 5}, "the node expanded into dict with int"),
    ("P.Nothing", {"expand": {"x": 5}}, "expanded node x: 5 is not allowed; expected an object with class_type"),
    ("P.Nothing", {"expand": {"x": {"inputs": {}}}}, "'' is not a known node class"),
    ("P.ListOut", (5,), "the node returned int for a list output; expected a list"),
]


@pytest.mark.parametrize(("kind", "returned", "message"), UNREADABLE)
def test_what_nobody_can_read_fails_that_node_and_neither_driver_nor_lane(
    stage: Stage, classes: dict[str, Any], kind: str, returned: Any, message: str
) -> None:
    classes[kind].value = returned
    end = {} if kind == "P.Nothing" else {"s": ("Show", {"value": ["n", 0]})}
    document = prompt(n=(kind, {}), **end)
    assert message in str(stage.run(document).error)
    scheduler = Scheduler(host_threads=1)
    assert message in str(scheduler.submit(stage.plan(document)).wait(10).error)
    both_lanes = prompt(
        a=("Add", {"a": 1, "b": 2}), n=("P.Abstract", {"value": ["a", 0]}), o=("P.Report", {"value": ["n", 0]})
    )
    assert scheduler.submit(stage.plan(both_lanes)).wait(10).or_raise().ui["o"] == {"shown": [3]}
    scheduler.close()


@pytest.mark.parametrize(
    "document",
    [
        prompt(n=("P.Anything", {"known": {"__value__": ["x", 0]}}), s=("Show", {"value": ["n", 0]})),
        prompt(n=("Add", {"a": 1, "b": 2}), s=("Show", {"value": ["n", 0]})) | {"loose": {"class_type": "Add"}},
    ],
    ids=["a wrapped list that looks like a link", "an unreachable node without inputs"],
)
def test_prompts_that_kill_the_reference_run(stage: Stage, document: dict[str, Any]) -> None:
    assert stage.run(document).error is None
    scheduler = Scheduler(host_threads=1)
    assert scheduler.submit(stage.plan(document)).wait(10).error is None
    scheduler.close()


def test_a_fault_of_the_engine_itself_ends_that_job_alone(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The store breaks while a job's next node is looked up."""
    scheduler = Scheduler(host_threads=1)
    sound = prompt(a=("Add", {"a": 1, "b": 2}), s=("Show", {"value": ["a", 0]}))
    kept = scheduler.store.claim
    scheduler.store.claim = lambda key, wake: 1 / 0  # type: ignore[method-assign, assignment]  # the fault
    assert "division by zero" in str(scheduler.submit(stage.plan(sound)).wait(10).error)
    scheduler.store.claim = kept  # type: ignore[method-assign]
    assert scheduler.submit(stage.plan(sound)).wait(10).error is None
    assert "the engine failed at a job" in caplog.text
    scheduler.close()


def test_graphs_are_built_as_packs_expect() -> None:
    CURRENT.set(CallContext("9"))
    first, second = GraphBuilder(), GraphBuilder()
    assert (first.prefix, second.prefix) == ("9.0.0.", "9.0.1.")
    CURRENT.set(None)
    graph = GraphBuilder("p.")
    source = graph.node("Add", a=1)
    named = graph.node("Show", "end", value=source.out(0), other=source.out(1))
    assert graph.node("Show", "end") is named
    assert graph.lookup_node("end") is named
    assert (source.id, named.id) == ("p.1", "p.end")
    named.set_input("more", 5)
    named.set_override_display_id("3")
    assert named.get_input("more") == 5
    graph.replace_node_output("1", 0, ["q", 2])
    graph.replace_node_output("1", 1, None)
    graph.remove_node("1")
    assert graph.finalize() == {
        "p.end": {"class_type": "Show", "inputs": {"value": ["q", 2], "more": 5}, "override_display_id": "3"}
    }
    assert graph.lookup_node("1") is None
