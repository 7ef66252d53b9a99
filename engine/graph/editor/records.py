"""The editor's file as records: scopes, nodes, slots, links. Both file versions; nothing about what nodes mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.errors import BadDocument

MUTED, BYPASSED = 2, 4
INPUT_SIDE, OUTPUT_SIDE = "-10", "-20"


@dataclass(frozen=True, slots=True)
class Slot:
    """An input or output of a node as the file lists it. `widget` names the widget it was converted from.

    `label` is what the page shows. `is_todays`: written by a page that lists a slot for every widget (1.16 and later).
    """

    name: str
    type: str
    link: str | None = None
    widget: str | None = None
    label: str = ""
    is_todays: bool = False


@dataclass(frozen=True, slots=True)
class Wire:
    """One entry of the link table."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True, slots=True)
class EditorNode:
    """One node as drawn. `values` is its `widgets_values`: a list, an object, or absent.

    `written` is the whole node of the file, for places, colours and labels, which few nodes ask for.
    """

    id: str
    type: str
    mode: int
    title: str | None
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    values: Any
    named_values: Mapping[str, Any] | None
    properties: Mapping[str, Any]
    written: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Neither muted nor bypassed."""
        return self.mode not in (MUTED, BYPASSED)

    @property
    def label(self) -> str:
        """What other nodes call it in texts: its search name, else its title."""
        return str(self.properties.get("Node name for S&R") or self.title or self.type)

    def slot(self, name: str) -> int | None:
        """The index of the input of that name."""
        return next((at for at, slot in enumerate(self.inputs) if slot.name == name), None)


@dataclass(frozen=True, slots=True)
class SubgraphSlot:
    """One input or output of a subgraph definition, with the inner links at it."""

    name: str
    type: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One canvas: the whole file, or the inside of a subgraph definition.

    `arrivals` are the links that no input names and the table alone knows, by target and slot; `leaving` are all, by
    origin and slot. `groups` are the frames, as the file has them.
    """

    nodes: Mapping[str, EditorNode]
    wires: Mapping[str, Wire]
    inputs: tuple[SubgraphSlot, ...] = ()
    outputs: tuple[SubgraphSlot, ...] = ()
    definitions: Mapping[str, Any] = field(default_factory=dict)
    arrivals: Mapping[tuple[str, int], str] = field(default_factory=dict)
    leaving: Mapping[tuple[str, int], Sequence[Wire]] = field(default_factory=dict)
    groups: Sequence[Any] = ()

    def wire_at(self, node: EditorNode, slot: int) -> Wire | None:
        """The link of an input: the one the slot names, else one only the table knows."""
        named = node.inputs[slot].link if slot < len(node.inputs) else None
        return self.wires.get(named if named is not None else self.arrivals.get((node.id, slot), ""))


def read_drawing(document: Mapping[str, Any], place: str, definitions: Mapping[str, Any]) -> Drawing:
    """Read a canvas; `definitions` are all of the file's."""
    nodes = [read_node(written, f"{place}.nodes[{at}]") for at, written in enumerate(list_at(document, "nodes", place))]
    wires = [
        wire for at, row in enumerate(list_at(document, "links", place)) if (wire := _wire(row, f"{place}.links[{at}]"))
    ]
    named = {(node.id, slot.link) for node in nodes for slot in node.inputs}
    leaving: dict[tuple[str, int], list[Wire]] = {}
    for wire in {wire.id: wire for wire in wires}.values():
        leaving.setdefault((wire.origin, wire.origin_slot), []).append(wire)
    return Drawing(
        {node.id: node for node in nodes},
        {wire.id: wire for wire in wires},
        tuple(_side(side) for side in list_at(document, "inputs", place)),
        tuple(_side(side) for side in list_at(document, "outputs", place)),
        definitions,
        {(wire.target, wire.target_slot): wire.id for wire in wires if (wire.target, wire.id) not in named},
        leaving,
        list_at(document, "groups", place),
    )


def read_node(written: Any, place: str) -> EditorNode:
    """One node of a file."""
    node = object_at(written, place)
    if "id" not in node or not isinstance(node.get("type"), str):
        raise BadDocument(f"{place}: a node needs an id and a type")
    properties, named = node.get("properties"), node.get("widgets_values_named")
    return EditorNode(
        id=_id(node["id"]),
        type=node["type"],
        mode=_integer(node.get("mode") or 0, f"{place}.mode"),
        title=node["title"] if isinstance(node.get("title"), str) else None,
        inputs=tuple(_slot(slot, f"{place}.inputs[{at}]") for at, slot in enumerate(list_at(node, "inputs", place))),
        outputs=tuple(_slot(slot, f"{place}.outputs[{at}]") for at, slot in enumerate(list_at(node, "outputs", place))),
        values=node.get("widgets_values"),
        named_values=named if isinstance(named, dict) else None,
        properties=properties if isinstance(properties, dict) else {},
        written=node,
    )


def _slot(written: Any, place: str) -> Slot:
    slot = object_at(written, place)
    widget = slot.get("widget")
    converted = str(widget.get("name", slot.get("name", ""))) if isinstance(widget, dict) else None
    link, name, localized = slot.get("link"), str(slot.get("name", "")), slot.get("localized_name")
    label = str(slot.get("label") or localized or name)
    return Slot(
        name, _type(slot.get("type")), None if link is None else _id(link), converted, label, localized is not None
    )


def _id(written: Any) -> str:
    """Ids as strings; Python writes whole numbers as 3.0 where a page writes 3."""
    return str(int(written)) if isinstance(written, float) and written.is_integer() else str(written)


def _type(written: Any) -> str:
    """Slot types are texts; old files write 0 or -1 for "anything", and lists for combos."""
    return "*" if written in (0, -1, None, "") else "COMBO" if isinstance(written, list) else str(written)


def _wire(written: Any, place: str) -> Wire | None:
    if written is None:
        return None
    if isinstance(written, list) and len(written) >= 5:
        parts = written[:5]
    elif isinstance(written, dict) and {"id", "origin_id", "target_id"} <= written.keys():
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        parts = [written.get(key, 0) for key in keys]
    else:
        raise BadDocument(f"{place}: expected [id, from, slot, to, slot, type] or an object with these names")
    wire, origin, origin_slot, target, target_slot = parts
    if None in parts:
        return None  # an end was deleted; the editor drops such a link too
    slots = _integer(origin_slot, place), _integer(target_slot, place)
    return Wire(_id(wire), _id(origin), slots[0], _id(target), slots[1]) if min(slots) >= 0 else None


def _side(written: Any) -> SubgraphSlot:
    side = written if isinstance(written, dict) else {}
    links = side.get("linkIds")
    ids = tuple(_id(link) for link in links) if isinstance(links, list) else ()
    return SubgraphSlot(str(side.get("name", "")), _type(side.get("type")), ids)


def _integer(value: Any, place: str) -> int:
    """Numbers, also written as text or as a whole float."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadDocument(f"{place}: {value!r} is not a number") from error


def list_at(document: Any, key: str, place: str) -> list[Any]:
    """The list under a key, empty where there is none."""
    value = document.get(key) if isinstance(document, dict) else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadDocument(f"{place}.{key}: expected a list, found {type(value).__name__}")
    return value


def object_at(value: Any, place: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise BadDocument(f"{place}: expected an object, found {type(value).__name__}")
    return value
