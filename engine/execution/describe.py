"""Plans people can read: what would run, what is there already, and what each node waits for. Runs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.graph.graph import GraphNode
from sigmagraph.engine.graph.node import Lane
from sigmagraph.engine.graph.plan import Plan
from sigmagraph.engine.graph.workflow import Link

Fate = Literal["runs", "memory", "disk", "perhaps", "unneeded"]


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One node of a plan. `perhaps`: only if a lazy input asks for it; `same_as`: an equal node that does its work."""

    node_id: str
    class_type: str
    title: str
    lane: Lane
    fate: Fate
    needs: Mapping[str, str]
    key: str
    same_as: str | None = None


def describe(plan: Plan, store: ResultStore) -> list[PlanLine]:
    """A line per node, in the order they would run."""
    sure = _reached(plan, store, list(plan.roots), lazily=False)
    perhaps = _reached(plan, store, list(plan.roots), lazily=True)
    first: dict[str, str] = {}
    lines = []
    for node_id in plan.order:
        vertex, key = plan.nodes[node_id], plan.key(node_id)
        fate = _fate(plan, store, node_id, sure, perhaps)
        twin = first.setdefault(key, node_id) if fate in ("runs", "perhaps") else node_id
        lines.append(
            PlanLine(
                node_id,
                vertex.node.class_type,
                str(vertex.meta.get("title", vertex.node.display_name or vertex.node.class_type)),
                vertex.node.lane,
                fate,
                {name: f"{link.source}.{link.slot}" for name, link in vertex.links},
                key,
                twin if twin != node_id else None,
            )
        )
    return lines


def _fate(plan: Plan, store: ResultStore, node_id: str, sure: set[str], perhaps: set[str]) -> Fate:
    kept = None if _acts(plan, node_id) else store.where(plan.key(node_id))
    if node_id not in sure and node_id not in perhaps:
        return kept or "unneeded"
    return kept or ("runs" if node_id in sure else "perhaps")


def _acts(plan: Plan, node_id: str) -> bool:
    """Output nodes run whatever the cache holds; volatile ones have no entry."""
    return plan.nodes[node_id].node.output_node or node_id in plan.keys.volatile


def _reached(plan: Plan, store: ResultStore, roots: list[str], lazily: bool) -> set[str]:
    """The nodes that are needed: from the roots backwards, not past a node whose result is kept."""
    reached: set[str] = set()
    waiting = roots
    while waiting:
        node_id = waiting.pop()
        if node_id in reached:
            continue
        reached.add(node_id)
        if _acts(plan, node_id) or plan.key(node_id) not in store:
            waiting += _sources(plan.nodes[node_id], lazily)
    return reached


def _sources(vertex: GraphNode, lazily: bool) -> list[str]:
    lazy = vertex.node.lazy
    return [
        value.source for name, value in vertex.inputs.items() if type(value) is Link and (lazily or name not in lazy)
    ]
