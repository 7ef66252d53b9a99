"""The nodes of an API prompt as it is stored."""

from collections.abc import Mapping
from typing import Any

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.page_nodes import BROADCASTERS, SILENT
from sigmagraph.engine.graph.replacements import RENAMED
from sigmagraph.engine.graph.workflow import NOTHING, Link, WorkflowNode, as_link

__all__ = ["kind_of_value", "nodes_of", "without_page_nodes"]

KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
DRAWN = SILENT | BROADCASTERS
"""What only the page reads, and has done its work when a prompt is queued; older pages left some of them in it."""


def nodes_of(prompt: Any) -> dict[str, WorkflowNode]:
    """Read an API prompt; a node without class stays, validation names it beside all other problems.

    Entries such as `_comment`, which people write into files by hand, are no nodes.
    """
    if not isinstance(prompt, dict):
        raise BadDocument(f"the prompt is {kind_of_value(prompt)}; expected an object of nodes")
    remarks = [key for key, value in prompt.items() if key.startswith("_") and not isinstance(value, dict)]
    return {node_id: _node(node_id, node) for node_id, node in prompt.items() if node_id not in remarks}


def _node(node_id: str, node: Any) -> WorkflowNode:
    if not isinstance(node, dict):
        raise BadDocument(f"node {node_id}: is {kind_of_value(node)}; expected an object with class_type and inputs")
    class_type, inputs = node.get("class_type", ""), node.get("inputs", {})
    if not isinstance(class_type, str):
        raise BadDocument(f"node {node_id}: class_type is {kind_of_value(class_type)}; expected a string")
    if not isinstance(inputs, dict):
        raise BadDocument(f"node {node_id} ({class_type}): inputs is {kind_of_value(inputs)}; expected an object")
    read = {name: as_link(value) or value if type(value) is list else value for name, value in inputs.items()}
    meta = node.get("_meta")
    return WorkflowNode(RENAMED.get(class_type, class_type), read, meta if isinstance(meta, dict) else NOTHING)


def without_page_nodes(nodes: Mapping[str, WorkflowNode]) -> tuple[Mapping[str, WorkflowNode], tuple[str, ...]]:
    """The nodes without those that live in the page alone and that nobody reads from, and a warning for each."""
    gone = {i for i, node in nodes.items() if node.class_type in DRAWN}
    if gone:
        gone -= {value.source for node in nodes.values() for value in node.inputs.values() if isinstance(value, Link)}
    told = tuple(
        f"node {i} ({nodes[i].class_type}): lives in the editor's page alone; left out" for i in nodes if i in gone
    )
    return {i: node for i, node in nodes.items() if i not in gone} if gone else nodes, told


def kind_of_value(value: Any) -> str:
    """What a JSON value is, for a message."""
    return KINDS.get(type(value), "null" if value is None else type(value).__name__)
