"""`--set NODE.INPUT=VALUE`: which node and input are meant, and what the value is."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import BadValue, UnknownName
from engine.graph.node import Node
from engine.graph.workflow import Workflow, as_link

__all__ = ["override"]

FORM = "NODE.INPUT=VALUE, NODE being an id, a title or a class that occurs once"


def override(workflow: Workflow, settings: Sequence[str], nodes: Mapping[str, Node]) -> Workflow:
    """The workflow with the inputs that `settings` name replaced."""
    values: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, input_name = target.rpartition(".")
        if not equals or not dot or not name or not input_name:
            raise BadValue("--set", setting, FORM)
        node_id = _node_id(workflow, name)
        values.setdefault(node_id, {})[input_name] = _value(workflow, node_id, input_name, text, nodes)
    return workflow.with_inputs(values)


def _node_id(workflow: Workflow, name: str) -> str:
    """The node with that id, else the only one with that title, else the only one of that class."""
    if name in workflow.nodes:
        return name
    titled = [node_id for node_id, node in workflow.nodes.items() if node.meta.get("title") == name]
    found = titled or [node_id for node_id, node in workflow.nodes.items() if node.class_type == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadValue("--set", name, f"one node; {len(found)} are called that, with the ids {', '.join(found)}")
    classes = {node.class_type for node in workflow.nodes.values()}
    titles = {node.title for node in workflow.nodes.values()}
    raise UnknownName("node of this workflow", name, {*workflow.nodes, *titles, *classes})


def _value(workflow: Workflow, node_id: str, input_name: str, text: str, nodes: Mapping[str, Node]) -> Any:
    """Text stays text where the input takes text; elsewhere it is read as JSON, or as a bare word."""
    class_type = workflow.nodes[node_id].class_type
    declared = nodes[class_type].declared.get(input_name)
    if declared is None or declared.group == "hidden":
        known = [each.name for each in nodes[class_type].inputs if each.group != "hidden"]
        raise UnknownName(f"input of node {node_id} ({class_type})", input_name, known)
    if declared.type == "STRING":
        return text
    if declared.type == "COMBO":
        return next((choice for choice in declared.allowed(None) or () if str(choice) == text), text)
    if declared.type == "BOOLEAN" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return as_link(value) or value
