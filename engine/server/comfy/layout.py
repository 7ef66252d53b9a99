"""A prompt as a drawing: API form -> the editor's document, nodes placed in columns by their depth."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sigmagraph.engine.graph.node import Input, Node
from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode

__all__ = ["as_editor"]

WIDTH, GAP = 320, 60
ROW, HEAD, TEXT_AREA, PICTURE = 28, 46, 90, 260
WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass
class _Canvas:
    """What is being drawn."""

    workflow: Workflow
    nodes: Mapping[str, Node]
    numbers: dict[str, int]
    links: list[list[Any]] = field(default_factory=list)
    ends: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    turns: Iterator[int] = field(default_factory=lambda: count(1))


def as_editor(workflow: Workflow, nodes: Mapping[str, Node]) -> dict[str, Any]:
    """The editor document of a workflow; one that came from the editor is handed back as it was.

    Node ids that are no numbers get numbers. Classes `nodes` does not know are drawn without inputs.
    """
    if workflow.editor is not None:
        return dict(workflow.editor)
    numbers = {node_id: int(node_id) for node_id in workflow.nodes if node_id.isdigit()}
    free = (number for number in count(1) if number not in set(numbers.values()))
    numbers |= {node_id: next(free) for node_id in workflow.nodes if node_id not in numbers}
    canvas = _Canvas(workflow, nodes, numbers)
    drawn = {node_id: _node(canvas, node_id, written) for node_id, written in workflow.nodes.items()}
    for node_id, each in drawn.items():
        each["outputs"] = _outputs(canvas, node_id)
    _place(workflow, drawn)
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, repr(sorted(numbers)))),
        "revision": 0,
        "last_node_id": max(numbers.values(), default=0),
        "last_link_id": len(canvas.links),
        "nodes": list(drawn.values()),
        "links": canvas.links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _node(canvas: _Canvas, node_id: str, written: WorkflowNode) -> dict[str, Any]:
    node = canvas.nodes.get(written.class_type)
    shown = [each for each in node.inputs if each.group != "hidden"] if node is not None else []
    sockets: list[dict[str, Any]] = []
    values: list[Any] = []
    height = HEAD
    for each in shown:
        value = written.inputs.get(each.name, each.options.get("default"))
        is_widget = _is_widget(each)
        if isinstance(value, Link) or not is_widget:
            sockets.append(_socket(canvas, node_id, each, value, len(sockets), is_widget))
            height += ROW
        if is_widget:
            fixed = ["fixed"] if each.options.get("control_after_generate") else []
            values += [_literal(each, value), *fixed]
            height += TEXT_AREA if each.options.get("multiline") else ROW * (1 + len(fixed))
            height += PICTURE if each.options.get("image_upload") else 0
    height += PICTURE if node is not None and node.output_node else 0
    drawn = {
        "id": canvas.numbers[node_id],
        "type": written.class_type,
        "pos": [0, 0],
        "size": [WIDTH, max(height, HEAD + ROW * len(node.outputs if node is not None else ()))],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": sockets,
        "outputs": [],
        "properties": {"Node name for S&R": written.class_type},
        "widgets_values": values,
    }
    return drawn | ({"title": written.title} if "title" in written.meta else {})


def _is_widget(declared: Input) -> bool:
    """Whether the page draws a widget for the input."""
    return declared.type in WIDGETS and not declared.options.get("forceInput")


def _literal(declared: Input, value: Any) -> Any:
    """What the widget shows; a linked one shows its default."""
    return declared.options.get("default", "") if isinstance(value, Link) else value


def _socket(canvas: _Canvas, node_id: str, declared: Input, value: Any, slot: int, is_widget: bool) -> dict[str, Any]:
    """One input with its link, if it has one."""
    socket: dict[str, Any] = {"name": declared.name, "type": declared.type, "link": None}
    if is_widget:
        socket["widget"] = {"name": declared.name}
    if isinstance(value, Link) and value.source in canvas.numbers:
        number = next(canvas.turns)
        source, target = canvas.numbers[value.source], canvas.numbers[node_id]
        canvas.links.append([number, source, value.slot, target, slot, declared.type])
        canvas.ends.setdefault((value.source, value.slot), []).append(number)
        socket["link"] = number
    return socket


def _outputs(canvas: _Canvas, node_id: str) -> list[dict[str, Any]]:
    node = canvas.nodes.get(canvas.workflow.nodes[node_id].class_type)
    outputs = node.outputs if node is not None else ()
    return [
        {
            "name": each.name or each.type,
            "type": each.type,
            "links": canvas.ends.get((node_id, slot), []),
            "slot_index": slot,
        }
        for slot, each in enumerate(outputs)
    ]


def _place(workflow: Workflow, drawn: Mapping[str, dict[str, Any]]) -> None:
    """Columns by depth from the sources, rows in prompt order."""
    depths = _depths(workflow)
    bottoms: dict[int, int] = {}
    for order, node_id in enumerate(sorted(drawn, key=lambda each: depths[each])):
        column, each = depths[node_id], drawn[node_id]
        top = bottoms.get(column, 0)
        each["pos"], each["order"] = [40 + column * (WIDTH + GAP), 40 + top], order
        bottoms[column] = top + int(each["size"][1]) + GAP


def _depths(workflow: Workflow) -> dict[str, int]:
    """How many links lie before a node; rounds until nothing changes, and a cycle ends them at the node count."""
    depths = dict.fromkeys(workflow.nodes, 0)
    for _ in workflow.nodes:
        is_settled = True
        for node_id, written in workflow.nodes.items():
            sources = [v.source for v in written.inputs.values() if isinstance(v, Link) and v.source in depths]
            depth = max((depths[source] + 1 for source in sources), default=0)
            if depth != depths[node_id] and depth < len(depths):
                depths[node_id], is_settled = depth, False
        if is_settled:
            break
    return depths
