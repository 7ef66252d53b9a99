"""Classes that are gone, and what their authors say stands in for them: applied when a workflow is read, and said.

A class that is still there is never replaced, and nothing is replaced by a class that is not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode

if TYPE_CHECKING:
    from sigmagraph.engine.graph.node import Node

__all__ = ["RENAMED", "Replacement", "replaced", "replacements_of"]

RENAMED = {  # as the editor itself renames what old drawings hold
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}


@dataclass(frozen=True, slots=True)
class Replacement:
    """How a node of the class `old` becomes one of the class `new`.

    `inputs` holds pairs: an input of the new class, and where it comes from, `{"old_id": name}` or
    `{"set_value": value}`. `outputs` holds pairs of an output of the old class and the one of the new class. None for
    either: names and positions stay. `widgets` are the inputs of the old class that have a place in the values of a
    drawing, in order; without them a drawing's values are lost.
    """

    old: str
    new: str
    widgets: Sequence[str] = ()
    inputs: Sequence[tuple[str, Mapping[str, Any]]] | None = None
    outputs: Sequence[tuple[int, int]] | None = None

    def node(self, node: WorkflowNode) -> WorkflowNode:
        """The node as one of the new class."""
        inputs = dict(node.inputs)
        if self.inputs is not None:
            taken = {
                name: source for name, source in self.inputs if "set_value" in source or source["old_id"] in inputs
            }
            inputs = {
                name: source["set_value"] if "set_value" in source else inputs[source["old_id"]]
                for name, source in taken.items()
            }
        return WorkflowNode(self.new, inputs, node.meta)

    def slot(self, old: int) -> int:
        """The output of the new class for one of the old class."""
        return dict(self.outputs or ()).get(old, old)

    def wire(self) -> dict[str, Any]:
        """The replacement as `GET /node_replacements` shows it."""
        inputs, outputs = self.inputs, self.outputs
        return {
            "old_node_id": self.old,
            "new_node_id": self.new,
            "old_widget_ids": list(self.widgets) or None,
            "input_mapping": None if inputs is None else [{"new_id": name, **source} for name, source in inputs],
            "output_mapping": None if outputs is None else [{"new_idx": new, "old_idx": old} for old, new in outputs],
        }

    @classmethod
    def of_wire(cls, written: Mapping[str, Any]) -> "Replacement":
        """The replacement from that form, as packs give it too. A mapping that says nothing of use is left out."""
        inputs, outputs = written.get("input_mapping"), written.get("output_mapping")
        return cls(
            str(written["old_node_id"]),
            str(written["new_node_id"]),
            tuple(str(name) for name in written.get("old_widget_ids") or ()),
            None if inputs is None else tuple((str(entry["new_id"]), _source(entry)) for entry in inputs),
            None if outputs is None else tuple((int(entry["old_idx"]), int(entry["new_idx"])) for entry in outputs),
        )


def _source(written: Mapping[str, Any]) -> Mapping[str, Any]:
    if "set_value" in written:
        return {"set_value": written["set_value"]}
    return {"old_id": str(written["old_id"])}


def replacements_of(nodes: Mapping[str, "Node"]) -> dict[str, Replacement]:
    """By the old class: those whose old class is not there. Of two the first counts."""
    found: dict[str, Replacement] = {}
    for node in nodes.values():
        for replacement in node.replaces:
            if replacement.old not in nodes:
                found.setdefault(replacement.old, replacement)
    return found


def replaced(workflow: Workflow, replacements: Mapping[str, Replacement]) -> Workflow:
    """The workflow with every node replaced that can be, and a warning for each class."""
    old = {i: replacements[n.class_type] for i, n in workflow.nodes.items() if n.class_type in replacements}
    if not old:
        return workflow
    nodes = {i: _relinked(old[i].node(node) if i in old else node, old) for i, node in workflow.nodes.items()}
    classes = {replacement.old: replacement for replacement in old.values()}
    told = (
        f"class {replacement.old!r} is gone; {replacement.new!r} stands in for it "
        f"({', '.join(i for i, other in old.items() if other is replacement)})"
        for replacement in classes.values()
    )
    return replace(workflow, nodes=nodes, warnings=(*workflow.warnings, *told))


def _relinked(node: WorkflowNode, old: Mapping[str, Replacement]) -> WorkflowNode:
    """The node with its links at the outputs of the new classes."""
    moved = {
        name: Link(value.source, old[value.source].slot(value.slot))
        for name, value in node.inputs.items()
        if isinstance(value, Link) and value.source in old and old[value.source].outputs
    }
    return replace(node, inputs={**node.inputs, **moved}) if moved else node
