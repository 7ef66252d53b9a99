"""Offered as `comfy_execution.graph_utils`: what nodes build their expansions with."""

from typing import Any

from sigmagraph.engine.execution.calling.context import current
from sigmagraph.engine.graph.workflow import as_link


def is_link(value: Any) -> bool:
    """Whether a value is `[node id, output index]`."""
    return as_link(value) is not None


class Node:
    """A node being built; `out(i)` is a link to its output `i`."""

    def __init__(self, node_id: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.id, self.class_type, self.inputs = node_id, class_type, inputs
        self.override_display_id: str | None = None

    def out(self, index: int) -> list[Any]:
        """A link to an output."""
        return [self.id, index]

    def set_input(self, key: str, value: Any) -> None:
        """Set an input; None removes it."""
        if value is None:
            self.inputs.pop(key, None)
        else:
            self.inputs[key] = value

    def get_input(self, key: str) -> Any:
        """The value of an input, or None."""
        return self.inputs.get(key)

    def set_override_display_id(self, override_display_id: str) -> None:
        """Let the editor show this node's progress at another node."""
        self.override_display_id = override_display_id

    def serialize(self) -> dict[str, Any]:
        """The node in API form."""
        written: dict[str, Any] = {"class_type": self.class_type, "inputs": self.inputs}
        return written | ({"override_display_id": self.override_display_id} if self.override_display_id else {})


class GraphBuilder:
    """Nodes with fresh ids: `<parent id>.<call>.<graph>.<n>` unless a prefix is given."""

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = prefix if prefix is not None else _next_prefix()
        self.nodes: dict[str, Node] = {}
        self.id_gen = 1

    def node(self, class_type: str, id: str | None = None, **kwargs: Any) -> Node:
        """Add a node; one of the same id is returned as it is."""
        if id is None:
            id, self.id_gen = str(self.id_gen), self.id_gen + 1
        node_id = self.prefix + id
        if node_id not in self.nodes:
            self.nodes[node_id] = Node(node_id, class_type, kwargs)
        return self.nodes[node_id]

    def lookup_node(self, id: str) -> Node | None:
        """The node of that id, without the prefix."""
        return self.nodes.get(self.prefix + id)

    def remove_node(self, id: str) -> None:
        """Take a node out again."""
        del self.nodes[self.prefix + id]

    def replace_node_output(self, node_id: str, index: int, new_value: Any) -> None:
        """Let whatever was linked to an output use something else; None removes the input."""
        link = [self.prefix + node_id, index]
        for node in self.nodes.values():
            for key in [key for key, value in node.inputs.items() if value == link]:
                node.set_input(key, new_value)

    def finalize(self) -> dict[str, Any]:
        """All nodes in API form, for `{"expand": ...}`."""
        return {node_id: node.serialize() for node_id, node in self.nodes.items()}


def _next_prefix() -> str:
    context = current()
    prefix = f"{context.node_id}.{context.call_index}.{context.graphs}."
    context.graphs += 1
    return prefix
