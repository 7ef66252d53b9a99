"""States and legal moves, and records that travel as JSON."""

import json
import subprocess
import sys
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue, IllegalMove
from sigmagraph.engine.execution import events as run_events
from sigmagraph.engine.graph.node import Extra, FileIn, Hidden, Node, Options, Output, Range, Socket, Tooltip, node
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.event_json import TYPES, decode, encode, plain
from sigmagraph.engine.jobs.events import Ended, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import ENDED, Failure, Idempotency, JobQuery, Outcome, State, Submission, move
from sigmagraph.engine.jobs.workers.declare import declarations, declared
from sigmagraph.engine.jobs.workers.worker import load_factory
from tests.graph.small import NODES, chain
from tests.jobs import stubs

LEGAL = {
    ("queued", "running"),
    ("queued", "cancelled"),
    ("queued", "expired"),
    ("queued", "failed"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "queued"),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("to", State)
def test_only_the_legal_moves_are_possible(state: State, to: State) -> None:
    if (state, to) in LEGAL:
        assert move("x", state, to) is to
    else:
        with pytest.raises(IllegalMove, match=f"job 'x' is {state}; it cannot become {to}"):
            move("x", state, to)


def test_an_end_is_what_nothing_leaves() -> None:
    assert {state for state in State if state.is_end} == set(ENDED) == set(State) - {start for start, _ in LEGAL}


def test_equal_bodies_make_equal_keys() -> None:
    assert Idempotency.of("k", b"a") == Idempotency.of("k", b"a") != Idempotency.of("k", b"b")


@pytest.mark.parametrize(
    "bad",
    [
        {"job_id": ""},
        {"job_id": "x" * 256},
        {"job_id": "a\0b"},
        {"job_id": "\ud800"},
        {"owner": "a\nb"},
        {"number": float("nan")},
        {"number": float("inf")},
        {"priority": 2**40},
        {"cost": -1},
        {"cost": 2**63},
        {"expires_s": float("nan")},
        {"keep_s": -1.0},
    ],
    ids=str,
)
def test_what_no_database_can_hold_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(BadValue, match=next(iter(bad)).replace("_id", " id")):
        Submission(Workflow({}), **bad)


def test_a_bound_is_said_to_the_last_digit() -> None:
    with pytest.raises(BadValue, match="-2147483647 to 2147483647"):
        Submission(Workflow({}), priority=2**40)


def test_lists_and_keys_have_limits_too() -> None:
    for make in (lambda: JobQuery(offset=2**70), lambda: JobQuery(limit=-1), lambda: Idempotency.of("a\0", b"")):
        with pytest.raises(BadValue):
            make()


EVENTS = [
    Queued(-3.0),
    Started(2, "w"),
    Requeued(1, "died"),
    Ended(State.SUCCEEDED),
    Ended(State.FAILED, Failure("c", "m", "1", "K", "E")),
    run_events.RunStarted(["1"]),
    run_events.NodeStarted("1", "K", "2"),
    run_events.NodeProgress("1", 1, 2.5),
    run_events.NodeFinished("1", "K", "1", "memory", 0.5, {"images": [{"filename": "x"}], "text": ["y" * 9999]}),
    run_events.NodeBlocked("1", "K", "m"),
    run_events.NodeExpanded("1", ["1.0"]),
    run_events.RunFailed("1", "K", "m", "ValueError", ["line"], {"a": [1]}, ["2"], "1.0"),
    run_events.RunCancelled("1", "K", ["2"]),
    run_events.RunSucceeded(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_comes_back_from_json_as_it_was(event: Any) -> None:
    name, values = encode(event)
    assert decode(name, json.loads(json.dumps(values))) == event


def test_every_kind_of_event_is_among_the_examples() -> None:
    assert {encode(event)[0] for event in EVENTS} == set(TYPES)


def test_an_event_of_a_later_version_is_read_without_what_is_new() -> None:
    assert decode("queued", {"number": 1.0, "mood": "good"}) == Queued(1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=50)
@given(JSON)
def test_json_values_are_plain_already(value: Any) -> None:
    assert plain(value) == value


def test_what_is_opaque_is_named_and_what_is_deep_ends() -> None:
    deep: list[Any] = []
    deep.append(deep)
    assert plain({1: object(), "t": (1, {2})}) == {"1": "<object>", "t": [1, [2]]}
    assert json.dumps(plain(deep)).endswith("<list>" + '"' + "]" * 32)
    assert plain("abc", 2) == "ab..."


@node("Choosy", category="test", lane="device", revision=3, outputs=(Output("COMBO", choices=("a", 1)), "IMAGE"))
def choosy(
    *,
    mode: Annotated[str, Options(lambda: ["one", "two"], named=True)] = "one",
    picture: Annotated[str, FileIn("input", upload="image")],
    amount: Annotated[float, Range(0.0, 1.0, step=0.1, strict=True), Tooltip("how much")] = 0.5,
    later: Annotated[Any, Socket("*"), Extra({"lazy": True})] = None,
    services: Annotated[Any, Hidden("SERVICES")],
) -> Any:
    """Takes everything a declaration can say."""


ALL: dict[str, Node] = {**NODES, **stubs.NODES, "Choosy": choosy}


def test_declarations_come_back_as_they_were() -> None:
    sent = json.loads(json.dumps(declarations(ALL.values(), None)))
    for name, back in declared(sent).items():
        there = ALL[name]
        assert back.object_info() == there.object_info()
        assert (back.schema, back.lane, back.revision) == (there.schema, there.lane, there.revision)
        assert [(socket.group, socket.default) for socket in back.inputs] == [
            (socket.group, socket.default) for socket in there.inputs
        ]
        assert (back.validator is None) == (there.validator is None)


def test_a_graph_of_declarations_validates_like_a_graph_of_nodes() -> None:
    front = declared(json.loads(json.dumps(declarations(NODES.values(), None))))
    here = validate(parse_workflow(chain(5)), NODES)
    there = validate(parse_workflow(chain(5)), front)
    assert (there.roots, there.prompt()) == (here.roots, here.prompt())
    with pytest.raises(AssertionError, match="workers only"):
        front["Add"](a=1)


@pytest.mark.parametrize("path", ["nowhere.at:all", "tests.jobs.stubs:nothing", "tests.jobs.stubs", ""])
def test_a_factory_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(BadValue, match="an import path like"):
        load_factory(path)


def test_the_front_imports_no_torch() -> None:
    code = "import sys, sigmagraph.engine.jobs.service, sigmagraph.engine.jobs.workers.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "numpy", "PIL", "transformers", "nodes", "aiohttp", "alembic"})


def test_what_a_node_in_a_loop_shows_is_what_its_turns_show() -> None:
    """In the order of the turns, whichever came first."""
    files = [{"filename": f"{turn}.png"} for turn in range(11)]
    nodes = {f"end.run.{turn}.body.save": {"display_id": "save"} for turn in range(11)}
    shown = {name: {"images": [files[turn]]} for turn, name in reversed(list(enumerate(nodes)))}
    assert Outcome(shown, nodes).shown_by("save") == {"images": files}
    assert Outcome({**shown, "save": {"images": files[:1]}}, nodes).shown_by("save") == {"images": files[:1]}
    assert Outcome(shown, nodes).shown_by("other") == {}
    later, first = "end.run.1.body.save", "end.run.0.body.save"
    packs: dict[str, Any] = {
        first: {"count": 3, "text": None, "images": files[:1]},
        later: {"text": ["b"], "name": "x"},
    }
    assert Outcome(packs, nodes).shown_by("save") == {"count": [], "text": ["b"], "images": files[:1], "name": []}
