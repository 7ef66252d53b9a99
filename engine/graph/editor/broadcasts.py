"""Values sent without a line (cg-use-everywhere): drawn as links before anything else is resolved.

A broadcast is one input of an Anything Everywhere node, or one output of a node that broadcasts by itself
(`properties.ue_convert`). It goes to every open input of its type in its own canvas that its conditions let through. Of
several that fit an input the one of the highest priority counts; two of the same priority are none, and it is said.

docs/editing.md lists the conditions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.broadcast_conditions import (
    Test,
    by_label,
    by_pattern,
    default_priority,
    number,
    restricted,
    settings_of,
    side_of,
)
from sigmagraph.engine.graph.editor.group_members import DrawnFrames
from sigmagraph.engine.graph.editor.page_nodes import BROADCASTERS
from sigmagraph.engine.graph.editor.records import (
    BYPASSED,
    INPUT_SIDE,
    MUTED,
    OUTPUT_SIDE,
    Drawing,
    EditorNode,
    Slot,
    SubgraphSlot,
    Wire,
)
from sigmagraph.engine.graph.editor.widgets import Declaration, is_widget

__all__ = ["with_broadcasts"]

MOST_TRIALS = 2_000_000  # broadcasts times open inputs of one type
SEED_NODE, SEED_INPUTS = "Seed Everywhere", "seed"


@dataclass(frozen=True, slots=True)
class OpenInput:
    """An open input: of a node, or of the output side of a subgraph (`node` is None)."""

    node: EditorNode | None
    slot: int
    type: str
    name: str
    title: str

    @property
    def shown(self) -> tuple[str, int]:
        """The node's id and the slot."""
        return (self.node.id if self.node is not None else OUTPUT_SIDE), self.slot


@dataclass(frozen=True, slots=True)
class Sent:
    """One value sent, and to whom: `conditions` take the target's input name and node title, `nodes` are ids."""

    origin: str
    slot: int
    type: str
    priority: int
    conditions: Sequence[Test]
    nodes: frozenset[str] | None
    to_combos: bool
    to_any: bool

    def types(self) -> Iterator[str]:
        """The types of inputs it goes to."""
        yield self.type
        if self.to_combos and self.type == "STRING":
            yield "COMBO"
        if self.to_any and self.type != "*":
            yield "*"

    def fits(self, target: OpenInput) -> bool:
        """Whether the target's node is not its own origin and every condition holds."""
        node_id = target.shown[0]
        if node_id == self.origin or (self.nodes is not None and node_id not in self.nodes):
            return False
        return all(test(target.name, target.title) for test in self.conditions)


def with_broadcasts(drawing: Drawing, declarations: Mapping[str, Declaration], warnings: list[str]) -> Drawing:
    """The drawing with a link for every value sent; the drawing itself where nothing is."""
    if not any(_sends(node) for node in drawing.nodes.values()):
        return drawing
    drawing = replace(drawing, nodes={i: _as_primitive(node) for i, node in drawing.nodes.items()})
    by_type: dict[str, list[Sent]] = {}
    frames = DrawnFrames(drawing)
    for node in drawing.nodes.values():
        for broadcast in _broadcasts(drawing, node, frames) if _sends(node) and node.runs else ():
            for kind in broadcast.types():
                by_type.setdefault(kind, []).append(broadcast)
    targets = list(_targets(drawing, declarations))
    if sum(len(by_type.get(target.type, ())) for target in targets) > MOST_TRIALS:
        raise BadDocument(f"broadcasts and open inputs make more than {MOST_TRIALS} pairs")
    sent = [(target, best) for target in targets if (best := _best(target, by_type.get(target.type, ()), warnings))]
    return _linked(drawing, sent)


def _sends(node: EditorNode) -> bool:
    return node.type in BROADCASTERS or node.type == SEED_NODE or node.properties.get("ue_convert") is True


def _as_primitive(node: EditorNode) -> EditorNode:
    """The seed node of old files is the core's PrimitiveInt that broadcasts."""
    if node.type != SEED_NODE:
        return node
    slots = tuple(
        replace(slot, name="value", widget="value" if slot.widget else None) if slot.name == "seed" else slot
        for slot in node.inputs
    )
    set_up = settings_of(node)
    kept = {"input_regex": SEED_INPUTS} if set_up.get("input_regex") in (None, "", ".*") else {}
    properties = {**node.properties, "ue_convert": True, "ue_properties": {**set_up, **kept}}
    return replace(node, type="PrimitiveInt", inputs=slots, properties=properties)


def _broadcasts(drawing: Drawing, node: EditorNode, frames: DrawnFrames) -> Iterator[Sent]:
    """One for each connected input, or for each output of a node that broadcasts by itself."""
    set_up = settings_of(node)
    sources = list(_own_outputs(node, set_up) if node.type not in BROADCASTERS else _arrivals(drawing, node))
    kinds = [kind for _, _, kind, _ in sources]
    is_repeated = any(kinds.count(kind) > 1 for kind in set(kinds))
    shared = list(by_pattern(node, set_up))
    nodes = restricted(drawing, node, set_up, frames)
    stored = set_up.get("priority")
    priority = stored if type(stored) is int and stored else default_priority(node, set_up, is_repeated)
    for origin, slot, kind, label in sources:
        tests = [*shared, *by_label(node, set_up, label, is_repeated=kinds.count(kind) > 1)]
        to_combos, to_any = (number(set_up, key) > 0 for key in ("string_to_combo", "send_to_any"))
        yield Sent(origin, slot, kind, priority, tests, nodes, to_combos, to_any)


def _own_outputs(node: EditorNode, set_up: Mapping[str, Any]) -> Iterator[tuple[str, int, str, str]]:
    silent = set_up.get("output_not_broadcasting")
    for at, slot in enumerate(node.outputs):
        if not (isinstance(silent, dict) and silent.get(slot.name)):
            yield node.id, at, slot.type, slot.label


def _arrivals(drawing: Drawing, node: EditorNode) -> Iterator[tuple[str, int, str, str]]:
    """Origin, slot and type of what arrives at the inputs, and the inputs' labels; nothing from muted nodes."""
    for at, slot in enumerate(node.inputs):
        wire = drawing.wire_at(node, at)
        kind = _kind(drawing, wire, slot) if wire is not None else ""
        wire = _live(drawing, wire, kind)
        if wire is not None:
            yield wire.origin, wire.origin_slot, kind, side_of(node, at, slot.label)


def _kind(drawing: Drawing, wire: Wire, slot: Slot) -> str:
    """The type that travels on a link: its origin's, else the one the input has taken on."""
    if wire.origin == INPUT_SIDE:
        given = drawing.inputs[wire.origin_slot].type if wire.origin_slot < len(drawing.inputs) else "*"
    else:
        origin = drawing.nodes.get(wire.origin)
        outputs = origin.outputs if origin is not None else ()
        given = outputs[wire.origin_slot].type if wire.origin_slot < len(outputs) else "*"
    return given if given != "*" else slot.type


def _live(drawing: Drawing, wire: Wire | None, kind: str) -> Wire | None:
    """The link behind bypassed nodes, by type; None where it ends at a muted node or at nothing."""
    for _ in range(len(drawing.nodes) + 1):
        if wire is None or wire.origin == INPUT_SIDE:
            return wire
        node = drawing.nodes.get(wire.origin)
        if node is None or node.mode == MUTED:
            return None
        if node.mode != BYPASSED:
            return wire
        slots = [wire.origin_slot, *range(len(node.inputs))]
        fits = next((at for at in slots if at < len(node.inputs) and node.inputs[at].type == kind), None)
        wire = drawing.wire_at(node, fits) if fits is not None else None
    return None


def _targets(drawing: Drawing, declarations: Mapping[str, Declaration]) -> Iterator[OpenInput]:
    """Every open input that may be sent to."""
    for node in drawing.nodes.values():
        if not node.runs or node.type in BROADCASTERS or node.properties.get("rejects_ue_links"):
            continue
        declaration = declarations.get(node.type)
        title = node.title or str((declaration or {}).get("display_name") or node.type)
        for at, slot in enumerate(node.inputs):
            wire = drawing.wire_at(node, at)
            if _live(drawing, wire, _kind(drawing, wire, slot) if wire is not None else "") is not None:
                continue
            if _may_receive(node, slot, is_widget(node, slot.name, declaration)):
                yield OpenInput(node, at, slot.type, slot.label, title)
    for at, side in enumerate(drawing.outputs):
        if not any(link in drawing.wires for link in side.links):
            yield OpenInput(None, at, side.type, side.name, "subgraph output node")


def _may_receive(node: EditorNode, slot: Slot, shows_widget: bool) -> bool:
    """Sockets receive unless the file says no; widgets where it says yes, in old files where they are sockets."""
    set_up = settings_of(node)
    if not shows_widget:
        closed = set_up.get("input_ue_unconnectable")
        return not (isinstance(closed, dict) and closed.get(slot.name))
    opened = set_up.get("widget_ue_connectable")
    if isinstance(opened, dict):
        return bool(opened.get(slot.name))
    return slot.widget is not None and not slot.is_todays


def _best(target: OpenInput, broadcasts: Sequence[Sent], warnings: list[str]) -> Sent | None:
    fitting = [broadcast for broadcast in broadcasts if broadcast.fits(target)]
    highest = max((broadcast.priority for broadcast in fitting), default=0)
    best = [broadcast for broadcast in fitting if broadcast.priority == highest]
    if len(best) > 1:
        told = f"node {target.shown[0]}.{target.name}: {len(best)} broadcasts of one priority; none is taken"
        if told not in warnings:
            warnings.append(told)
    return best[0] if len(best) == 1 else None


def _linked(drawing: Drawing, sent: Sequence[tuple[OpenInput, Sent]]) -> Drawing:
    """The drawing with the links; inputs that named a dead one name none."""
    wires, nodes = dict(drawing.wires), dict(drawing.nodes)
    outputs: list[SubgraphSlot] = list(drawing.outputs)
    for target, broadcast in sent:
        node_id, slot = target.shown
        wire = Wire(f"sent to {node_id}.{slot}", broadcast.origin, broadcast.slot, node_id, slot)
        wires[wire.id] = wire
        if target.node is None:
            outputs[slot] = replace(outputs[slot], links=(wire.id,))
            continue
        node = nodes[node_id]
        slots = (*node.inputs[:slot], replace(node.inputs[slot], link=wire.id), *node.inputs[slot + 1 :])
        nodes[node_id] = replace(node, inputs=slots)
    return replace(drawing, wires=wires, nodes=nodes, outputs=tuple(outputs))
