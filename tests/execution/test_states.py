"""The states of a node in a run, as they are drawn at the head of run.py."""

import random
from collections import Counter
from typing import Annotated, Any

import pytest

from sigmagraph.engine.execution import run as run_module
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.execution.vertex import MOVES, Status, Vertex
from sigmagraph.engine.graph.node import Expansion, Node, Socket, node
from sigmagraph.engine.graph.plan import plan
from tests.execution.running import Stage
from tests.execution.test_random_graphs import random_document
from tests.graph.small import checked

Move = tuple[Status, Status]


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Counter[Move]:
    """Every move that any node makes while the test runs."""
    seen: Counter[Move] = Counter()
    keep = Vertex.__setattr__

    def watched(vertex: Vertex, name: str, value: Any) -> None:
        before = getattr(vertex, "status", None)
        if name == "status" and before is not None:
            seen[before, value] += 1
        keep(vertex, name, value)

    monkeypatch.setattr(Vertex, "__setattr__", watched)
    return seen


@node("Tight", category="test")
def tight() -> int:
    """Runs out of memory, the first time."""
    if not TRIES:
        TRIES.append(1)
        raise MemoryError
    return 1


@node("Recall", category="test")
def recall() -> Annotated[Expansion, Socket("INT")]:
    """Gives what node `a` gave, which nobody could know before."""
    return Expansion({}, (["a", 0],))


TRIES: list[int] = []
LET_GO = {
    "a": {"class_type": "Add", "inputs": {"a": 1, "b": 2}},
    "s": {"class_type": "Show", "inputs": {"value": ["a", 0]}},
    "r": {"class_type": "Recall", "inputs": {}},
    "t": {"class_type": "Show", "inputs": {"value": ["r", 0]}},
}


def test_nodes_make_the_moves_that_are_drawn_and_each_of_them(moves: Counter[Move], nodes: dict[str, Node]) -> None:
    TRIES.clear()
    own = {**nodes, "Tight": tight, "Recall": recall}
    tried = {"x": {"class_type": "Tight", "inputs": {}}, "s": {"class_type": "Show", "inputs": {"value": ["x", 0]}}}
    assert Stage(own).run(tried).ui["s"] == {"shown": [1]}
    for budget_bytes in (0, None):
        assert Stage(own, MemoryCache(budget_bytes)).run(LET_GO).ui["t"] == {"shown": [3]}
    for seed in range(40):
        document = random_document(random.Random(seed).randrange(2, 120), seed)
        scheduler = Scheduler(None, MemoryCache(20_000 if seed % 2 else None), host_threads=2)
        tickets = [scheduler.submit(plan(checked(document, nodes))) for _ in range(3)]
        assert [ticket.wait(30).error for ticket in tickets] == [None] * 3
        scheduler.close()
    assert set(moves) == {(before, after) for before, all_after in MOVES.items() for after in all_after}


def test_the_drawing_names_every_state() -> None:
    drawing = run_module.__doc__ or ""
    assert all(state.name in drawing for state in Status)
