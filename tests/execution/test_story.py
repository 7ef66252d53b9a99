"""The story at the head of run.py, played: after each call every node stands where the table says."""

import re

import pytest

from sigmagraph.engine.execution import run as run_module
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.execution.run import Run
from sigmagraph.engine.graph.plan import plan
from sigmagraph.engine.graph.results import Row
from tests.graph.small import checked, prompt

NODES = ("a", "b", "show")
TABLE = re.compile(r"^    (start|take|finished)\((\w*)\) +([A-Z]+) +([A-Z]+) +([A-Z]+)\b *(.*)$", re.MULTILINE)
CHAIN = prompt(a=("Add", {"a": 1, "b": 1}), b=("Add", {"a": ["a", 0], "b": 1}), show=("Show", {"value": ["b", 0]}))


def remark_holds(remark: str, run: Run) -> bool:
    """What the table says beside the states."""
    a, b = run.vertices["a"], run.vertices["b"]
    facts = {
        "b and show are each in the `consumers` of their source": (a.consumers, b.consumers) == (["b"], ["show"]),
        "a's key is claimed": a.is_claimed,
        "a is kept in the store; b.missing: 1 -> 0": a.key in run.store and b.missing == 0 and a.entry is not None,
        "nobody reads a any more: a.entry is let go": a.entry is None and a.key in run.store,
        "_open is empty: is_over": run.is_over,
        "": not run.is_over,
    }
    return facts[remark]


@pytest.mark.quick
def test_the_story_at_the_head_of_the_file_is_true() -> None:
    rows = TABLE.findall(run_module.__doc__ or "")
    assert [call for call, *_ in rows] == ["start", *["take", "finished"] * 3]
    run = Run(plan(checked(CHAIN)), None, ResultStore(MemoryCache()), lambda event: None, {})
    for call, node_id, *states, remark in rows:
        match call:
            case "start":
                run.start()
            case "take":
                taken = run.take()
            case "finished":
                assert taken is not None
                assert taken.id == node_id
                run.finished(taken, [Row((1,))], 0.0)
        assert [run.vertices[name].status.name for name in NODES] == states, (call, node_id)
        assert remark_holds(remark, run), (call, node_id, remark)
