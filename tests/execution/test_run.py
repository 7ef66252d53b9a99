import time
from collections.abc import Generator
from typing import Any

import pytest

from sigmagraph.engine.errors import Cancelled, NodeFailed
from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.graph.node import Node, Progress, node
from tests.execution.running import Stage, with_nodes
from tests.graph.small import Anything, chain, prompt

SUM = prompt(a=("Add", {"a": 1, "b": 2}), b=("Add", {"a": ["a", 0], "b": 10}), s=("Show", {"value": ["b", 0]}))


@node("Boom", category="test")
def boom(*, value: Anything) -> Anything:
    """Fails."""
    raise ValueError(f"cannot take {value}")


@node("Count", category="test")
def count(*, steps: int = 3) -> Generator[Progress, None, int]:
    """Counts with progress."""
    for step in range(steps):
        yield Progress(step + 1, steps, preview=f"p{step}")
    return steps


def test_values_flow_along_links() -> None:
    assert Stage().shown(SUM) == [13]


def test_a_second_run_executes_only_the_output() -> None:
    stage = Stage()
    assert stage.run(SUM).executed == ["a", "b", "s"]
    again = stage.run(SUM)
    assert again.executed == ["s"]
    assert {i: r.outcome for i, r in again.nodes.items()} == {"a": "memory", "b": "memory", "s": "executed"}
    assert again.ui["s"] == {"shown": [13]}


def test_a_change_executes_what_lies_behind_it() -> None:
    stage = Stage()
    stage.run(SUM)
    changed = {**SUM, "b": {"class_type": "Add", "inputs": {"a": ["a", 0], "b": 11}}}
    assert stage.run(changed).executed == ["b", "s"]


def test_renumbered_nodes_are_found_in_the_cache() -> None:
    stage = Stage()
    stage.run(SUM)
    renamed = prompt(x=("Add", {"a": 1, "b": 2}), y=("Add", {"a": ["x", 0], "b": 10}), z=("Show", {"value": ["y", 0]}))
    assert stage.run(renamed).executed == ["z"]


def test_equal_nodes_of_one_prompt_run_once_and_both_show_their_ui() -> None:
    document = prompt(
        a=("Add", {"a": 1, "b": 2}), b=("Add", {"a": 1, "b": 2}), c=("Add", {"a": ["a", 0], "b": ["b", 0]}),
        s=("Show", {"value": ["c", 0]}), t=("Show", {"value": ["c", 0]}),
    )  # fmt: skip
    for cache in (MemoryCache(), MemoryCache(budget_bytes=0)):
        result = Stage(cache=cache).run(document)
        assert result.executed == ["a", "c", "s"]
        assert result.ui == {"s": {"shown": [6]}, "t": {"shown": [6]}}


def test_without_a_cache_every_run_executes_everything() -> None:
    stage = Stage(cache=MemoryCache(budget_bytes=0))
    assert stage.run(SUM).executed == stage.run(SUM).executed == ["a", "b", "s"]


def test_events_tell_the_run_in_order() -> None:
    stage = Stage(with_nodes(count))
    stage.run(prompt(c=("Count", {"steps": 2}), s=("Show", {"value": ["c", 0]})))
    told = [type(event).__name__ for event in stage.log]
    work = ["NodeStarted", "NodeProgress", "NodeProgress", "NodeFinished"]
    assert told == ["RunStarted", *work, "NodeStarted", "NodeFinished", "RunSucceeded"]
    assert [(e.value, e.maximum, e.preview) for e in stage.of(events.NodeProgress)] == [(1, 2, "p0"), (2, 2, "p1")]
    assert stage.of(events.NodeFinished)[-1].ui == {"shown": [2]}


def test_the_start_lists_what_is_cached_in_prompt_order() -> None:
    stage = Stage()
    stage.run(SUM)
    stage.run(SUM)
    assert stage.of(events.RunStarted)[0].cached == ["a", "b"]


def test_the_finish_says_where_a_result_came_from_and_how_long_it_took() -> None:
    @node("Slow", category="test")
    def slow(*, value: int = 0) -> int:
        """Sleeps."""
        time.sleep(0.02)
        return value

    stage = Stage(with_nodes(slow))
    document = prompt(a=("Slow", {"value": 1}), s=("Show", {"value": ["a", 0]}))
    assert stage.run(document).nodes["a"].milliseconds >= 20
    assert (stage.run(document).nodes["a"].outcome, stage.run(document).nodes["a"].milliseconds) == ("memory", 0.0)


def test_a_node_that_fails_ends_the_run_with_its_place_and_cause() -> None:
    stage = Stage(with_nodes(boom))
    document = prompt(a=("Add", {"a": 1, "b": 2}), x=("Boom", {"value": ["a", 0]}), s=("Show", {"value": ["x", 0]}))
    result = stage.run(document)
    assert isinstance(result.error, NodeFailed)
    assert str(result.error) == "node x (Boom): cannot take 3"
    assert isinstance(result.error.__cause__, ValueError)
    (failure,) = stage.of(events.RunFailed)
    assert (failure.node_id, failure.exception_type, failure.executed) == ("x", "ValueError", ["a"])
    assert failure.inputs == {"value": [3]}
    with pytest.raises(NodeFailed, match="cannot take 3"):
        result.or_raise()


def test_a_failed_node_leaves_no_entry_and_the_others_keep_theirs() -> None:
    stage = Stage(with_nodes(boom))
    document = prompt(a=("Add", {"a": 1, "b": 2}), x=("Boom", {"value": ["a", 0]}), s=("Show", {"value": ["x", 0]}))
    stage.run(document)
    assert len(stage.cache) == 1
    assert stage.run(document).nodes["a"].outcome == "memory"


def test_a_cancel_between_nodes_stops_before_the_next() -> None:
    stage = Stage()
    result = stage.run(SUM, cancelled=lambda: bool(stage.of(events.NodeFinished)))
    assert result.is_cancelled
    assert result.executed == ["a"]
    (event,) = stage.of(events.RunCancelled)
    assert (event.node_id, event.executed) == ("b", ["a"])


def test_a_cancel_at_a_progress_report_stops_inside_the_node_and_leaves_no_entry() -> None:
    closed: list[str] = []

    @node("Patient", category="test")
    def patient(*, steps: int = 9) -> Generator[Progress, None, int]:
        """Can be stopped."""
        try:
            for step in range(steps):
                yield Progress(step, steps)
        except Cancelled:
            closed.append("cancelled")
            raise
        return steps

    stage = Stage(with_nodes(patient))
    document = prompt(p=("Patient", {"steps": 9}), s=("Show", {"value": ["p", 0]}))
    result = stage.run(document, cancelled=lambda: len(stage.of(events.NodeProgress)) >= 3)
    assert result.is_cancelled
    assert closed == ["cancelled"]
    assert len(stage.of(events.NodeProgress)) == 3
    assert len(stage.cache) == 0


def test_ten_thousand_nodes_behind_each_other_run() -> None:
    assert Stage().run(chain(10_000)).or_raise().ui["end"] == {"shown": [10_000]}


def test_values_nobody_reads_any_more_are_let_go() -> None:
    class Block:
        nbytes = 1

    alive: list[int] = []
    blocks: list[Any] = []

    @node("Make", category="test")
    def make(*, value: Anything) -> Anything:
        """A block, after counting those alive."""
        import gc
        import weakref

        gc.collect()
        alive.append(sum(ref() is not None for ref in blocks))
        block = Block()
        blocks.append(weakref.ref(block))
        return block

    made: dict[str, Any] = {f"m{i}": ("Make", {"value": [f"m{i - 1}", 0] if i else 0}) for i in range(6)}

    @node("End", category="test", output_node=True)
    def end(*, value: Anything) -> None:
        """Nothing."""

    stage = Stage(with_nodes(make, end), MemoryCache(budget_bytes=0))
    stage.run(prompt(**made, s=("End", {"value": ["m5", 0]}))).or_raise()
    assert alive == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("wrong", [(1, 2, 3), 5, None])
def test_a_wrong_number_of_outputs_is_an_error_that_says_both_numbers(wrong: Any) -> None:
    made: Node = node("Wrong", category="test", outputs=("INT", "INT"))(lambda: wrong)
    result = Stage(with_nodes(made)).run(prompt(w=("Wrong", {}), s=("Show", {"value": ["w", 0]})))
    assert "it declares 2 outputs, so expected a tuple of 2" in str(result.error)
