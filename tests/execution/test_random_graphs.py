"""Random graphs with lists, lazy inputs, expansions and blockers, against a naive recursive evaluator."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.calling.instances import Instances
from sigmagraph.engine.execution.lanes.scheduler import Scheduler
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.plan import plan
from tests.execution.naive import BLOCKED, Naive
from tests.execution.running import Stage
from tests.graph.small import checked

SIZES = st.integers(2, 300)
SEEDS = st.integers(0, 2**32)


def random_document(size: int, seed: int) -> dict[str, Any]:
    """`size` nodes that link backwards, shown at some places; lists only grow where they cannot multiply."""
    dice = random.Random(seed)
    numbers: list[tuple[str, int, bool]] = []
    texts: list[tuple[str, int, bool]] = []
    document: dict[str, Any] = {}

    def pick(kinds: list[tuple[str, int, bool]], literal: Any) -> tuple[Any, bool]:
        if not kinds or dice.random() < 0.15:
            return literal, False
        source, slot, is_list = dice.choice(kinds[-12:])
        return [source, slot], is_list

    for at in range(size):
        node_id = str(at)
        kind = dice.choice(["Add", "Add", "Split", "P.Pair", "P.Twice", "P.Block", "P.Range", "P.Switch", "P.Gather"])
        first, is_list = pick(numbers, dice.randrange(6))
        second, is_second_list = pick(numbers, dice.randrange(6))
        is_any = is_list or is_second_list
        inputs: dict[str, Any] = {"value": first}
        match kind:
            case "Add":
                inputs = {"a": first, "b": second}
                numbers.append((node_id, 0, is_any))
            case "Split":
                numbers += [(node_id, 0, is_list), (node_id, 1, is_list)]
            case "P.Twice":
                numbers.append((node_id, 0, is_list))
            case "P.Block":
                inputs["message"] = ""
                numbers.append((node_id, 0, is_list))
            case "P.Range":
                inputs = {"start": dice.randrange(4) if is_list else first, "count": dice.randrange(4)}
                numbers.append((node_id, 0, True))
            case "P.Switch":
                inputs = {"which": dice.random() < 0.5, "yes": first, "no": second}
                numbers.append((node_id, 0, is_any))
            case "P.Gather":
                inputs = {"values": pick(texts or numbers, 1)[0], "sep": ","}
                texts.append((node_id, 0, False))
            case _:
                inputs = {"a": first, "b": second}
                texts.append((node_id, 0, is_any))
        document[node_id] = {"class_type": kind, "inputs": inputs}
    for at in range(1 + size // 20):
        source, slot, _ = dice.choice(numbers + texts)
        document[f"s{at}"] = {"class_type": "Show", "inputs": {"value": [source, slot]}}
    return document


def expected(document: dict[str, Any]) -> tuple[dict[str, Any], Naive]:
    """What each output shows, and the evaluator, which knows the nodes that were called."""
    naive = Naive(document)
    shown: dict[str, Any] = {}
    for node_id, written in document.items():
        if written["class_type"] == "Show":
            values = [value for value in naive.value(written["inputs"]["value"]) if value is not BLOCKED]
            if values:
                shown[node_id] = {"shown": values}
    return shown, naive


def agrees(stage: Stage, document: dict[str, Any]) -> None:
    shown, naive = expected(document)
    result = stage.run(document).or_raise()
    assert {node_id: ui for node_id, ui in result.ui.items() if node_id.startswith("s")} == shown
    ours = [naive.form(i) for i in result.executed if i in document and not i.startswith("s")]
    assert len(ours) == len(set(ours)), "an equal node was called twice"
    assert set(ours) - naive.inner == naive.called - naive.inner


@settings(max_examples=60, deadline=None)
@given(SIZES, SEEDS)
def test_results_and_called_nodes_are_those_of_the_naive_evaluator(
    nodes: dict[str, Node], size: int, seed: int
) -> None:
    agrees(Stage(nodes), random_document(size, seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 120), SEEDS)
def test_a_cache_changes_no_result_and_calls_nothing_again(nodes: dict[str, Node], size: int, seed: int) -> None:
    stage = Stage(nodes)
    document = random_document(size, seed)
    first = stage.run(document).or_raise()
    again = stage.run(document).or_raise()
    assert again.ui.items() >= {i: ui for i, ui in first.ui.items() if i.startswith("s")}.items()
    assert [i for i in again.executed if not i.startswith("s")] == []


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 120), SEEDS)
def test_without_a_cache_the_results_are_the_same(nodes: dict[str, Node], size: int, seed: int) -> None:
    agrees(Stage(nodes, MemoryCache(budget_bytes=0), instances=Instances()), random_document(size, seed))


def test_many_random_graphs_at_once_give_what_each_gives_alone(nodes: dict[str, Node]) -> None:
    documents = [random_document(40 + seed, seed) for seed in range(40)]
    scheduler = Scheduler(host_threads=3)
    tickets = [scheduler.submit(plan(checked(document, nodes))) for document in documents]
    for document, ticket in zip(documents, tickets, strict=True):
        ui = ticket.wait(60).or_raise().ui
        assert {node_id: shown for node_id, shown in ui.items() if node_id.startswith("s")} == expected(document)[0]
    scheduler.close()
