"""Of the two workflows in a picture, which one counts: its prompt (what was run) or its drawing (what the page showed).

The rule, the same on the command line and over HTTP:

0. The prompt, where a lock is beside it: the lock says what was run, and that is what a replay is about.
1. The prompt, where both are the same graph: the same classes, linked in the same way. Texts that the page fills in
   when it queues (`{a|b}`, `%date%`), seeds it draws and numbers it steps may differ.
2. The drawing, where they are the same graph but the prompt lacks a required input that the drawing has.
3. The drawing, where they are two graphs: the page shows it, and a client may have put another prompt beside it. It is
   said.
4. The prompt, where the drawing is empty, has nodes of unknown classes or cannot be read: only the prompt is whole.

`Form` forces one of them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode

__all__ = ["FORMS", "Form", "agree", "chosen"]

Form = Literal["auto", "drawing", "prompt"]
FORMS: tuple[Form, ...] = ("auto", "drawing", "prompt")
ROUNDS = 8  # how far neighbours are looked at when graphs with other ids are compared


def chosen(prompt: Workflow, drawing: Workflow, declarations: Mapping[str, Any]) -> Workflow:
    """One of the two, by the rule above, with a warning where they are not the same graph."""
    if not drawing.nodes or not all(node.class_type in declarations for node in drawing.nodes.values()):
        return prompt
    if not agree(prompt, drawing):
        told = f"the picture holds a drawing of {len(drawing.nodes)} nodes and a prompt of {len(prompt.nodes)} that is"
        warning = f"{told} another graph; the drawing is taken (--form prompt takes the other)"
        return replace(drawing, warnings=(*drawing.warnings, warning))
    lacking = list(_lacking(prompt, drawing, declarations))
    if lacking:
        warning = (
            f"the picture's prompt lacks {', '.join(lacking)}; its drawing is taken (--form prompt takes the other)"
        )
        return replace(drawing, warnings=(*drawing.warnings, warning))
    return prompt


def agree(one: Workflow, other: Workflow) -> bool:
    """Whether two workflows link the same classes in the same way, whatever their nodes are called."""
    shapes = [{i: (node.class_type, _links(node)) for i, node in workflow.nodes.items()} for workflow in (one, other)]
    return shapes[0] == shapes[1] or Counter(_marks(one)) == Counter(_marks(other))


def _links(node: WorkflowNode) -> dict[str, Link]:
    return {name: value for name, value in node.inputs.items() if isinstance(value, Link)}


def _marks(workflow: Workflow) -> list[int]:
    """A number for each node, equal for nodes whose surroundings upstream look alike."""
    marks = {i: hash(node.class_type) for i, node in workflow.nodes.items()}
    for _ in range(min(ROUNDS, len(marks))):
        marks = {
            i: hash(
                (
                    node.class_type,
                    *sorted((name, marks.get(link.source, 0), link.slot) for name, link in _links(node).items()),
                )
            )
            for i, node in workflow.nodes.items()
        }
    return list(marks.values())


def _lacking(prompt: Workflow, drawing: Workflow, declarations: Mapping[str, Any]) -> list[str]:
    """The required inputs that the drawing gives and the prompt does not, as `node.input`."""
    return [
        f"{node_id}.{name}"
        for node_id, node in prompt.nodes.items()
        if node_id in drawing.nodes
        for name in (declarations[node.class_type].get("input") or {}).get("required") or ()
        if name not in node.inputs and name in drawing.nodes[node_id].inputs
    ]
