"""`Workflow`: what every kind of document becomes. Plain records; nothing about nodes or files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Link(NamedTuple):
    """Where an input comes from: output `slot` of node `source`. JSON never makes a tuple: a Link is unmistakable."""

    source: str
    slot: int


@dataclass(frozen=True, slots=True)
class WorkflowNode:
    """One vertex as written: literals unconverted, links read, anything list-like that is not a link left as it is."""

    class_type: str
    inputs: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    @property
    def title(self) -> str:
        """What the editor showed above the node."""
        return str(self.meta.get("title", self.class_type))


@dataclass(frozen=True, slots=True)
class Workflow:
    """A document in execution form; `editor` is the visual document it came from or travelled with."""

    nodes: Mapping[str, WorkflowNode]
    editor: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    def with_inputs(self, values: Mapping[str, Mapping[str, Any]]) -> "Workflow":
        """A copy with some inputs replaced, `{node id: {input: literal or Link}}`."""
        nodes = dict(self.nodes)
        for node_id, inputs in values.items():
            old = nodes[node_id]
            nodes[node_id] = WorkflowNode(old.class_type, {**old.inputs, **inputs}, old.meta)
        return Workflow(nodes, self.editor, self.warnings)

    def prompt(self) -> dict[str, Any]:
        """The workflow in API form again."""
        return {node_id: api_node(node.class_type, node.inputs, node.meta) for node_id, node in self.nodes.items()}


def as_link(value: Any) -> Link | None:
    """The link a JSON value means, if it is one: a list of a node id and an output index."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    source, slot = value
    return Link(source, slot) if isinstance(source, str) and type(slot) is int else None


def api_node(class_type: str, inputs: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """One node in API form."""
    written = {name: list(value) if isinstance(value, Link) else value for name, value in inputs.items()}
    return {"class_type": class_type, "inputs": written} | ({"_meta": dict(meta)} if meta else {})
