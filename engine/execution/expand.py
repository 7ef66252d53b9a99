"""Run-time growth: the nodes a node puts in its place become vertices of the run. Nothing is validated on the way."""

from collections.abc import Container, Mapping
from typing import Any

from sigmagraph.engine.errors import BadValue, DuplicateName, UnknownName
from sigmagraph.engine.execution.vertex import Vertex
from sigmagraph.engine.graph.dynamic import resolved
from sigmagraph.engine.graph.graph import Graph, GraphNode
from sigmagraph.engine.graph.keys import Keys
from sigmagraph.engine.graph.literals import unwrap
from sigmagraph.engine.graph.node import GetNode, Node
from sigmagraph.engine.graph.plan import depth_first, is_read_by_none, repeated
from sigmagraph.engine.graph.results import Expansion
from sigmagraph.engine.graph.workflow import Link, as_link

Vertices = Mapping[str, Vertex]


def grow(
    parent: Vertex, expansion: Expansion, graph: Graph, keys: Keys, vertices: Vertices, turn: int
) -> dict[str, Vertex]:
    """The new vertices by id, keyed, sources first; nodes of the prompt that nobody needed so far come along."""
    made = {i: _vertex(i, written, graph.classes, vertices) for i, written in expansion.graph.items()}
    wanted = [link.source for link in result_links(expansion)]
    adopted = _adopt(
        [*wanted, *(link.source for written in made.values() for _, link in written.links)], graph, made, vertices
    )
    order = depth_first({**made, **adopted}, list({**made, **adopted}), known=vertices)
    fresh: dict[str, Vertex] = {}
    for at, node_id in enumerate(order):
        is_made = node_id in made
        node = made[node_id] if is_made else adopted[node_id]
        override = expansion.graph[node_id].get("override_display_id") if is_made else None
        shown = _display(override, parent, vertices) if is_made else node_id
        rank = (*parent.rank, turn, at)
        fresh[node_id] = Vertex(node, keys.add(node), rank, shown, parent.id if is_made else None)
    return fresh


def outputs_among(expansion: Expansion, fresh: Mapping[str, Vertex], get_node: GetNode) -> list[str]:
    """The new output nodes; in the place of those that another new node runs copies of, that node."""
    roots = [i for i in expansion.graph if fresh[i].node.output_node]
    if is_read_by_none(roots, (vertex.at for vertex in fresh.values())):
        return roots
    bodies = repeated((fresh[node_id].at for node_id in expansion.graph), get_node)
    repeating = {node_id: repeater for repeater, body in bodies for node_id in body}
    found: dict[str, None] = {}
    for root in roots:
        for _ in fresh:  # a cycle, which is told later, would be followed for ever
            if root not in repeating:
                break
            root = repeating[root]
        found[root] = None
    return list(found)


def result_links(expansion: Expansion) -> list[Link]:
    """The links among what an expansion gives back."""
    return [link for item in expansion.result or () if (link := as_link(item)) is not None]


def _vertex(node_id: str, written: Any, classes: Mapping[str, Node], existing: Container[str]) -> GraphNode:
    if node_id in existing:
        raise DuplicateName(f"node {node_id!r} exists already; an expansion must use new ids")
    if not isinstance(written, dict) or not isinstance(written.get("inputs", {}), dict):
        raise BadValue(f"expanded node {node_id}", written, "an object with class_type and inputs")
    class_type = written.get("class_type", "")
    if class_type not in classes:
        raise UnknownName("node class", str(class_type), classes)
    return graph_node(node_id, classes[class_type], written.get("inputs", {}), written.get("_meta", {}))


def graph_node(node_id: str, node: Node, inputs: Mapping[str, Any], meta: Mapping[str, Any]) -> GraphNode:
    """An unvalidated vertex: links are read, undeclared literals are set aside."""
    links = {name: link for name, value in inputs.items() if (link := as_link(value)) is not None}
    node = resolved(node, {**inputs, **links})
    given: dict[str, Any] = {}
    ignored: dict[str, Any] = {}
    for name, value in inputs.items():
        link = value if type(value) is Link else as_link(value)
        if link is not None:
            given[name] = link
        elif name in node.declared:
            given[name] = unwrap(value)
        else:
            ignored[name] = value
    return GraphNode(node_id, node, given, ignored, meta)


def _adopt(ids: list[str], graph: Graph, made: Mapping[str, Any], vertices: Vertices) -> dict[str, GraphNode]:
    """Nodes of the prompt outside the graph that new nodes link to, with all they depend on."""
    adopted: dict[str, GraphNode] = {}
    waiting = list(ids)
    while waiting:
        node_id = waiting.pop()
        if node_id in made or node_id in vertices or node_id in adopted:
            continue
        written = graph.workflow.nodes.get(node_id)
        if written is None or written.class_type not in graph.classes:
            raise UnknownName("node", node_id, [*made, *vertices])
        node = graph.classes[written.class_type]
        adopted[node_id] = graph_node(node_id, node, written.inputs, written.meta)
        waiting += [link.source for _, link in adopted[node_id].links]
    return adopted


def _display(override: Any, parent: Vertex, vertices: Vertices) -> str:
    """What the editor shows for a new node: the override's own display id, else the parent's."""
    if override is None:
        return parent.display_id
    vertex = vertices.get(str(override))
    return vertex.display_id if vertex is not None else str(override)
