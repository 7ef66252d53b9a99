"""`Graph` + targets -> ordered nodes with content keys. Linear, without recursion; runs nothing but fingerprints."""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.graph import Graph, GraphNode
from sigmagraph.engine.graph.keys import Keys
from sigmagraph.engine.graph.node import GetNode, Repeats, Services
from sigmagraph.engine.graph.pause import no_collection


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run needs to know: the vertices, an order in which sources come first, and each one's key."""

    graph: Graph
    roots: Sequence[str]
    order: Sequence[str]
    keys: Keys

    @property
    def nodes(self) -> Mapping[str, GraphNode]:
        """The vertices by id."""
        return self.graph.nodes

    def key(self, node_id: str) -> str:
        """The content key of a node."""
        return self.keys.by_id[node_id]


def plan(graph: Graph, services: Services | None = None, targets: Collection[str] | None = None) -> Plan:
    """Order and key what the roots need; `targets` keeps only those roots."""
    with no_collection():
        roots = _alone(graph, [root for root in graph.roots if targets is None or root in targets])
        order = depth_first(graph.nodes, roots)
        keys = Keys(services)
        for node_id in order:
            keys.add(graph.nodes[node_id])
    return Plan(graph, roots, order, keys)


def _alone(graph: Graph, roots: list[str]) -> list[str]:
    """The roots without those that another node of the plan runs copies of: turns of a loop have their own results.

    Such roots lie before that node, so what the others need stays the same without them.
    """

    def written(node_id: str) -> Mapping[str, Any]:
        found = graph.workflow.nodes[node_id]
        return {"class_type": found.class_type, "inputs": found.inputs}

    if is_read_by_none(roots, graph.nodes.values()):
        return roots
    needed = [graph.nodes[node_id] for node_id in depth_first(graph.nodes, roots)]
    copied = {node_id for _, body in repeated(needed, written) for node_id in body}
    return [root for root in roots if root not in copied]


def is_read_by_none(roots: Collection[str], nodes: Iterable[GraphNode]) -> bool:
    """Whether no node reads an output node, as mostly: then none runs copies of one, and no loop is looked for."""
    return {link.source for at in nodes for _, link in at.links}.isdisjoint(roots)


def repeated(nodes: Iterable[GraphNode], get_node: GetNode) -> Iterator[tuple[str, Collection[str]]]:
    """The nodes that run copies of others, with these; those that cannot tell are left out: it is told when they run.

    One search serves all nodes of a class, for each of many loops in a row looks at all before it.
    """
    searches: dict[Repeats, Callable[[str], Collection[str]]] = {}
    for at in nodes:
        begin = at.node.repeats
        if begin is None:
            continue
        if begin not in searches:
            searches[begin] = begin(get_node)
        try:
            body = searches[begin](at.id)
        except EngineError:
            continue
        yield at.id, body


def depth_first(nodes: Mapping[str, GraphNode], roots: Sequence[str], known: Container[str] = ()) -> list[str]:
    """Sources first, one root finished before the next begins, inputs in the order written; `known` are passed by.

    Not graphlib's order: that goes level by level and so keeps a whole level of images alive at once.
    """
    order: list[str] = []
    entered: set[str] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node_id, is_leaving = stack.pop()
        if is_leaving:
            order.append(node_id)
        elif node_id not in entered and node_id not in known:
            entered.add(node_id)
            stack.append((node_id, True))
            stack += [(link.source, False) for _, link in reversed(nodes[node_id].links) if link.source not in entered]
    return order
