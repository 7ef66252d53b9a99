"""Where an input's value comes from, through reroutes, bypassed nodes and the walls of subgraphs."""

from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.page_nodes import GETTERS, HANDING_ON, PAGE_ONLY, name_of
from sigmagraph.engine.graph.editor.records import BYPASSED, INPUT_SIDE, MUTED, EditorNode
from sigmagraph.engine.graph.editor.scope import Scope
from sigmagraph.engine.graph.type_matching import members
from sigmagraph.engine.graph.workflow import Link


@dataclass(frozen=True, slots=True)
class Value:
    """A promoted widget's own value, in place of a link."""

    value: Any


@dataclass(frozen=True, slots=True)
class _At:
    """A place on the way: an input slot, or an output slot, of a node in a scope; `wanted` is the type asked for."""

    scope: Scope
    node: EditorNode
    slot: int
    is_input: bool
    wanted: str


Known = dict[tuple[int, str, int, bool, str], Link | Value | None]
"""Places that were passed on the way to an origin, with that origin: inputs that share a way walk it once."""


def resolve(scope: Scope, node: EditorNode, slot: int, known: Known) -> Link | Value | None:
    """The origin of an input slot; None if nothing arrives there. A loop through virtual nodes is refused.

    `known` is filled, and belongs to one conversion.
    """
    place: _At | Link | Value | None = _At(scope, node, slot, True, node.inputs[slot].type)
    visited: set[tuple[int, str, int, bool]] = set()
    passed: Known = {}
    while isinstance(place, _At):
        mark = id(place.scope), place.node.id, place.slot, place.is_input
        if mark in visited:
            raise BadDocument(f"node {scope.id_of(node)} ({node.type}): its input runs in a circle of virtual nodes")
        visited.add(mark)
        here = (*mark, place.wanted)
        if here in known:
            place = known[here]
            break
        passed[here] = None
        place = _behind_input(place) if place.is_input else _behind_output(place)
    known.update(dict.fromkeys(passed, place))
    return place


def _behind_input(place: _At) -> _At | Value | None:
    wire = place.scope.drawing.wire_at(place.node, place.slot)
    if wire is None:
        return None
    if wire.origin == INPUT_SIDE:
        return _outside(place.scope, wire.origin_slot, place.wanted)
    origin = place.scope.drawing.nodes.get(wire.origin)
    return _At(place.scope, origin, wire.origin_slot, False, place.wanted) if origin is not None else None


def _outside(scope: Scope, k: int, wanted: str) -> _At | Value | None:
    """From a definition's input `k` to the instance: its link, else its promoted value."""
    if scope.outer is None or scope.host is None or k >= len(scope.drawing.inputs):
        return None
    name = scope.drawing.inputs[k].name
    slot = scope.host.slot(name)
    wire = scope.outer.drawing.wire_at(scope.host, slot) if slot is not None else None
    if slot is not None and wire is not None and not _is_primitive(scope.outer, wire.origin):
        return _At(scope.outer, scope.host, slot, True, wanted)
    return Value(scope.promoted[name]) if name in scope.promoted else None


def _is_primitive(scope: Scope, node_id: str) -> bool:
    """A primitive carries no link: it has written its value into what it is drawn to."""
    node = scope.drawing.nodes.get(node_id)
    return node is not None and node.type == "PrimitiveNode"


def _behind_output(place: _At) -> _At | Link | Value | None:
    scope, node = place.scope, place.node
    if node.mode == MUTED:
        return None
    if node.mode == BYPASSED:
        slot = bypass(node, place.slot, place.wanted)
        return None if slot is None else _At(scope, node, slot, True, node.inputs[slot].type)
    if node.id in scope.children:
        return _inside(scope.children[node.id], place.slot, place.wanted)
    if node.type in GETTERS:
        return _at_setter(scope, node, place.wanted)
    if node.type in PAGE_ONLY:
        hands_on = node.type in HANDING_ON and place.slot < len(node.inputs)
        return _At(scope, node, place.slot, True, place.wanted) if hands_on else None
    return Link(scope.id_of(node), place.slot)


def _at_setter(scope: Scope, node: EditorNode, wanted: str) -> _At | None:
    """From a getting node to the input of the setting node of its name, in its own canvas or the nearest around it."""
    found = setter_of(scope, node)
    return _At(found[0], found[1], 0, True, wanted) if found is not None and found[1].inputs else None


def setter_of(scope: Scope, node: EditorNode) -> tuple[Scope, EditorNode] | None:
    """The canvas and the setting node a getting node reads; None where nothing of that name is set."""
    key, around = (GETTERS[node.type], name_of(node)), scope
    while key not in around.setters:
        if around.outer is None:
            return None
        around = around.outer
    return around, around.setters[key]


def _inside(child: Scope, k: int, wanted: str) -> _At | Value | None:
    """From an instance's output `k` to the inner node that feeds it; an output wired to an input passes through."""
    if k >= len(child.drawing.outputs):
        return None
    wires = (child.drawing.wires.get(link) for link in child.drawing.outputs[k].links)
    wire = next((candidate for candidate in wires if candidate is not None), None)
    if wire is None:
        return None
    if wire.origin == INPUT_SIDE:
        return _outside(child, wire.origin_slot, wanted)
    origin = child.drawing.nodes.get(wire.origin)
    return _At(child, origin, wire.origin_slot, False, wanted) if origin is not None else None


def bypass(node: EditorNode, slot: int, wanted: str) -> int | None:
    """The input that stands in for output `slot` of a bypassed node; it may be unconnected."""
    inputs = node.inputs
    if not inputs:
        return None
    if wanted in ("*", ""):
        return slot if slot < len(inputs) else 0
    given = node.outputs[slot].type if slot < len(node.outputs) else "*"

    def both(at: int) -> bool:
        return alike(inputs[at].type, given) and alike(inputs[at].type, wanted)

    if slot < len(inputs) and both(slot):
        return slot
    exact = next((at for at, candidate in enumerate(inputs) if candidate.type == wanted), None)
    return exact if exact is not None else next((at for at in range(len(inputs)) if both(at)), None)


def alike(one: str, other: str) -> bool:
    """Types as the editor compares them: without case, `*` and empty fit all, comma lists share a member."""
    one, other = one.lower(), other.lower()
    return one in ("*", "") or other in ("*", "") or bool(members(one) & members(other))
