import json
from itertools import count
from pathlib import Path
from typing import Any

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.execution.describe import describe
from sigmagraph.engine.execution.inline import execute
from sigmagraph.engine.execution.trace import Trace
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.plan import plan
from tests.graph.small import NODES, checked, prompt

SUM = prompt(a=("Add", {"a": 1, "b": 2}), b=("Add", {"a": ["a", 0], "b": 10}), s=("Show", {"value": ["b", 0]}))


def fates(document: dict[str, Any], store: ResultStore, nodes: dict[str, Node] = NODES) -> dict[str, str]:
    return {line.node_id: line.fate for line in describe(plan(checked(document, nodes)), store)}


def test_a_plan_says_what_would_run_and_what_is_cached() -> None:
    store = ResultStore()
    assert fates(SUM, store) == {"a": "runs", "b": "runs", "s": "runs"}
    execute(plan(checked(SUM)), None, store)
    assert fates(SUM, store) == {"a": "memory", "b": "memory", "s": "runs"}
    changed = {**SUM, "b": {"class_type": "Add", "inputs": {"a": ["a", 0], "b": 11}}}
    assert fates(changed, store) == {"a": "memory", "b": "runs", "s": "runs"}


def test_a_plan_says_what_each_node_needs_and_which_nodes_are_equal() -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 2}),
        c=("Add", {"a": 1, "b": 2}),
        d=("Add", {"a": ["a", 0], "b": ["c", 0]}),
        s=("Show", {"value": ["d", 0]}),
    )
    lines = {line.node_id: line for line in describe(plan(checked(document)), ResultStore())}
    assert lines["d"].needs == {"a": "a.0", "b": "c.0"}
    assert (lines["a"].same_as, lines["c"].same_as) == (None, "a")


def test_what_only_a_lazy_input_may_ask_for_runs_perhaps(nodes: dict[str, Node]) -> None:
    document = prompt(
        y=("Add", {"a": 1, "b": 2}),
        n=("Add", {"a": 1, "b": 3}),
        w=("P.Switch", {"which": True, "yes": ["y", 0], "no": ["n", 0]}),
        s=("Show", {"value": ["w", 0]}),
    )
    assert fates(document, ResultStore(), nodes) == {"y": "perhaps", "n": "perhaps", "w": "runs", "s": "runs"}


def test_nodes_behind_a_cached_one_are_not_needed() -> None:
    store = ResultStore(MemoryCache())
    execute(plan(checked(SUM)), None, store)
    store.memory.drop(plan(checked(SUM)).key("a"))
    assert fates(SUM, store) == {"a": "unneeded", "b": "memory", "s": "runs"}


def assert_readable(written: list[dict[str, Any]]) -> None:
    """The rules of Chrome's trace event format (JSON object form) for metadata and nestable async events."""
    opened: dict[tuple[Any, ...], list[str]] = {}
    for record in written:
        assert isinstance(record["name"], str)
        assert isinstance(record["pid"], int)
        assert record["ph"] in ("M", "b", "n", "e")
        if record["ph"] == "M":
            assert record["name"] == "process_name"
            assert isinstance(record["args"]["name"], str)
            continue
        assert isinstance(record["tid"], int)
        assert isinstance(record["ts"], int | float)
        assert record["ts"] >= 0
        assert record["cat"]
        assert record["id"]
        lane = opened.setdefault((record["cat"], record["id"], record["pid"]), [])
        if record["ph"] == "b":
            lane.append(record["name"])
        elif record["ph"] == "e":
            assert lane.pop() == record["name"]
    assert not any(opened.values())


def test_traces_of_jobs_that_succeed_fail_and_are_cancelled_follow_the_rules_of_the_viewers(
    tmp_path: Path, nodes: dict[str, Node]
) -> None:
    trace, store = Trace(), ResultStore(MemoryCache())
    fails = prompt(a=("P.AsyncAdd", {"a": -1, "milliseconds": 0}), s=("Show", {"value": ["a", 0]}))
    waits = prompt(w=("P.Sleeps", {"steps": 5, "milliseconds": 0}), s=("Show", {"value": ["w", 0]}))
    blocks = prompt(b=("P.Block", {"value": 1, "message": "no"}), s=("Show", {"value": ["b", 0]}))
    loops = prompt(c=("P.Countdown", {"count": 3, "total": 0}), s=("Show", {"value": ["c", 0]}))
    for name, document in {"sum": SUM, "again": SUM, "fails": fails, "blocks": blocks, "loops": loops}.items():
        execute(plan(checked(document, nodes)), None, store, trace.listener(name))
    heard: list[object] = []
    result = execute(
        plan(checked(waits, nodes)),
        None,
        store,
        trace.listener("waits", heard.append),
        cancelled=lambda: len(heard) > 3,
    )
    assert result.is_cancelled
    trace.write(tmp_path / "trace.json")
    written = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert written["displayTimeUnit"] == "ms"
    assert_readable(written["traceEvents"])
    assert sum(record["ph"] == "b" for record in written["traceEvents"]) > 12
    assert any(record["name"] == "RunCancelled" for record in written["traceEvents"])


def test_a_trace_holds_a_begin_and_an_end_for_each_node(tmp_path: Path) -> None:
    trace = Trace(clock=count().__next__)
    execute(plan(checked(SUM)), None, None, trace.listener("one"))
    trace.write(tmp_path / "trace.json")
    written = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert written[0] == {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "one"}}
    assert_readable(written)
    for node_id in "abs":
        phases = [record["ph"] for record in written if record.get("id") == f"1.{node_id}"]
        assert phases == ["b", "e"]
    times = [record["ts"] for record in written if "ts" in record]
    assert times == sorted(times)
