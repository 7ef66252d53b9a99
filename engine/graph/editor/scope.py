"""Canvases unfolded: each subgraph instance opens a scope, with its own values for promoted widgets.

A scope knows its canvas, the instance it stands for and the scope around it. Ids inside read `outer:inner`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.broadcasts import with_broadcasts
from sigmagraph.engine.graph.editor.definitions import definitions_of
from sigmagraph.engine.graph.editor.page_nodes import setters
from sigmagraph.engine.graph.editor.records import INPUT_SIDE, Drawing, EditorNode, read_drawing
from sigmagraph.engine.graph.editor.widgets import Declaration, is_widget

DEEPEST = 64
MOST_SCOPES = 10_000
MOST_NODES = 50_000  # in all instances: a small file can draw a large subgraph very often


@dataclass(slots=True, eq=False)
class Scope:
    """One canvas in place. `promoted` holds this instance's values by input name, `overrides` by node and widget.

    `setters` are the nodes that hand a value on by its name, by type and name.
    """

    drawing: Drawing
    path: str = ""
    outer: "Scope | None" = None
    host: EditorNode | None = None
    children: dict[str, "Scope"] = field(default_factory=dict)
    promoted: dict[str, Any] = field(default_factory=dict)
    overrides: dict[tuple[str, str], Any] = field(default_factory=dict)
    setters: dict[tuple[str, str], EditorNode] = field(init=False)

    def __post_init__(self) -> None:
        self.setters = setters(self.drawing)

    def id_of(self, node: EditorNode) -> str:
        """The id the node has in the prompt."""
        return self.path + node.id


def unfold(document: Mapping[str, Any], declarations: Mapping[str, Declaration], warnings: list[str]) -> Scope:
    """The root scope with every instance opened below it. `warnings` gets what could not be carried over."""
    drawing = read_drawing(document, "workflow", definitions_of(document, "workflow", warnings))
    root = Scope(with_broadcasts(drawing, declarations, warnings))
    waiting = [(root, 0)]
    opened = copied = 0
    while waiting:
        scope, depth = waiting.pop()
        opened += 1
        if opened > MOST_SCOPES:
            raise BadDocument(f"the document has more than {MOST_SCOPES} subgraph instances, counted inside each other")
        if depth > DEEPEST:
            raise BadDocument(
                f"node {scope.path.rstrip(':')}: subgraphs nested more than {DEEPEST} deep, or in themselves"
            )
        for node in scope.drawing.nodes.values():
            written = scope.drawing.definitions.get(node.type)
            if written is None:
                continue
            inner = read_drawing(written, f"definitions.subgraphs[{node.type}]", scope.drawing.definitions)
            inner = with_broadcasts(inner, declarations, warnings)
            copied += len(inner.nodes)
            if copied > MOST_NODES:
                raise BadDocument(f"the document's subgraph instances have more than {MOST_NODES} nodes in all")
            child = scope.children[node.id] = Scope(inner, f"{scope.id_of(node)}:", scope, node)
            waiting.append((child, depth + 1))
    for scope in list(every_scope(root)):
        _read_promoted(scope, declarations)
    return root


def every_scope(root: Scope) -> Iterator[Scope]:
    """The scope and all below it, outer ones first."""
    waiting = [root]
    while waiting:
        scope = waiting.pop()
        yield scope
        waiting += reversed(scope.children.values())


def _read_promoted(scope: Scope, declarations: Mapping[str, Declaration]) -> None:
    """The instance's own values: one per promoted input, or one per entry of `proxyWidgets`."""
    host = scope.host
    if host is None:
        return
    values = host.values if isinstance(host.values, list) else []
    proxies = host.properties.get("proxyWidgets")
    if isinstance(proxies, list) and proxies:
        for entry, value in zip(proxies, values, strict=False):
            if value is None or not isinstance(entry, list) or len(entry) < 2 or str(entry[1]).startswith("$$"):
                continue
            if str(entry[0]) == "-1":
                scope.promoted[str(entry[1])] = value
            else:
                scope.overrides[str(entry[0]), str(entry[1])] = value
        return
    names = [side.name for k, side in enumerate(scope.drawing.inputs) if is_promoted(scope, k, declarations)]
    scope.promoted.update(zip(names, values, strict=False))


def is_promoted(scope: Scope, k: int, declarations: Mapping[str, Declaration]) -> bool:
    """Whether definition input `k` drives a widget inside, directly or through instances further in."""
    waiting = [(scope, k)]
    while waiting:
        inner, slot = waiting.pop()
        for wire in inner.drawing.leaving.get((INPUT_SIDE, slot), ()):
            if wire.target not in inner.drawing.nodes:
                continue
            node = inner.drawing.nodes[wire.target]
            name = input_name(node, wire.id, wire.target_slot)
            child = inner.children.get(node.id)
            if child is not None:
                waiting += [(child, at) for at, side in enumerate(child.drawing.inputs) if side.name == name]
            elif is_widget(node, name, declarations.get(node.type)):
                return True
    return False


def input_name(node: EditorNode, wire: str, slot: int) -> str:
    """The input a link ends at: by the slot that names the link, else by index."""
    named = next((socket.name for socket in node.inputs if socket.link == wire), None)
    return named if named is not None else node.inputs[slot].name if slot < len(node.inputs) else ""
