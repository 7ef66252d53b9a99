"""`NODE.INPUT=VALUE`: which node and input are meant, and what the value is. NODE is an id, a title or a class."""

from collections.abc import Mapping, Sequence
from typing import Any

from sigmagraph.engine.errors import BadDocument, BadValue, UnknownName
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.reading.document import parse_json
from sigmagraph.engine.graph.workflow import Link, Workflow, as_link

__all__ = ["Setting", "find_input", "override", "override_values", "read_setting"]

FORM = "NODE.INPUT=VALUE, NODE being an id, a title or a class that occurs once"
Setting = tuple[str, str]


def override(workflow: Workflow, settings: Sequence[str], nodes: Mapping[str, Node]) -> Workflow:
    """The workflow with the inputs that `settings` (texts of the form above) name replaced."""
    return override_values(workflow, [read_setting(setting) for setting in settings], nodes, are_texts=True)


def override_values(
    workflow: Workflow, settings: Sequence[tuple[str, Any]], nodes: Mapping[str, Node], *, are_texts: bool = False
) -> Workflow:
    """The same for pairs of `NODE.INPUT` and a JSON value; with `are_texts`, values are read as on a command line."""
    values: dict[str, dict[str, Any]] = {}
    for target, value in settings:
        node_id, input_name = find_input(workflow, target, nodes)
        read = _read(workflow, node_id, input_name, value, nodes) if are_texts else as_link(value) or value
        values.setdefault(node_id, {})[input_name] = read
    return workflow.with_inputs(values)


def read_setting(text: str) -> Setting:
    """`NODE.INPUT=VALUE` in its two parts."""
    target, equals, value = text.partition("=")
    if not equals:
        raise BadValue("--set", text, FORM)
    return target, value


def find_input(workflow: Workflow, target: str, nodes: Mapping[str, Node]) -> tuple[str, str]:
    """The node id and input that `NODE.INPUT` means; raises `UnknownName` where there is none."""
    name, dot, input_name = target.rpartition(".")
    if not dot or not name or not input_name:
        raise BadValue("--set", target, FORM)
    node_id = _node_id(workflow, name)
    class_type = workflow.nodes[node_id].class_type
    if class_type not in nodes:
        raise UnknownName("node class", class_type, nodes)
    declared = nodes[class_type].declared.get(input_name)
    if declared is None or declared.group == "hidden":
        known = [known_input.name for known_input in nodes[class_type].inputs if known_input.group != "hidden"]
        raise UnknownName(f"input of node {node_id} ({class_type})", input_name, known)
    return node_id, input_name


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


def _read(workflow: Workflow, node_id: str, input_name: str, text: str, nodes: Mapping[str, Node]) -> Any:
    """Text stays text where the input takes text; elsewhere it is read as JSON, or as a bare word."""
    declared = nodes[workflow.nodes[node_id].class_type].declared[input_name]
    if declared.type == "STRING":
        return text
    if declared.type == "COMBO":
        return next((choice for choice in declared.allowed(None) or () if str(choice) == text), text)
    if declared.type == "BOOLEAN" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = parse_json(text)
    except BadDocument:  # a bare word, or a number of more digits than are read: validation says what is wrong with it
        return text
    link: Link | None = as_link(value)
    return link or value
