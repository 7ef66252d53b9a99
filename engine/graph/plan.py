"""`Graph` + targets -> ordered nodes with content keys. Linear, without recursion; runs nothing but fingerprints."""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

from sigmagraph.engine.graph.graph import Graph, GraphNode
from sigmagraph.engine.graph.keys import Keys
from sigmagraph.engine.graph.node import Services
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
    roots = [root for root in graph.roots if targets is None or root in targets]
    with no_collection():
        order = depth_first(graph.nodes, roots)
        keys = Keys(services)
        for node_id in order:
            keys.add(graph.nodes[node_id])
    return Plan(graph, roots, order, keys)


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
