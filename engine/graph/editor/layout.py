"""The way back: an API prompt as an editor document, with a layout a person can read.

Converting the result gives the same prompt again, but for inputs the prompt left out, which get their defaults.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.errors import BadDocument, suggestion
from sigmagraph.engine.graph.editor.columns import Box, placed
from sigmagraph.engine.graph.editor.dynamic_widgets import is_dynamic, laid_out
from sigmagraph.engine.graph.editor.widgets import Declaration, Widget, declared_inputs, widget_type, widgets_of
from sigmagraph.engine.graph.literals import unwrap
from sigmagraph.engine.graph.workflow import Link, as_link

__all__ = ["drawn"]

WIDTH, TITLE, SLOT_HEIGHT, WIDGET_HEIGHT, TEXT_HEIGHT, PICTURE_HEIGHT = 315, 30, 20, 24, 120, 250
MOST_LISTED = 100
COMMENT_BEGINS = re.compile(r"/(?=[/*])")


def drawn(prompt: Mapping[str, Any], declarations: Mapping[str, Declaration]) -> dict[str, Any]:
    """The editor document (version 0.4) of a prompt in API form; raises `BadDocument` naming every unknown class."""
    _refuse_unknown(prompt, declarations)
    nodes = {node_id: _Node(node_id, written, declarations[_class(written)]) for node_id, written in prompt.items()}
    wires = [wire for node in nodes.values() for wire in node.links() if wire[0].source in nodes]
    numbered = [(at, *wire) for at, wire in enumerate(wires, 1)]
    boxes = {
        node_id: Box(WIDTH, node.height, tuple(link.source for link, *_ in node.links()))
        for node_id, node in nodes.items()
    }
    spots = placed(boxes)
    order = {node_id: rank for rank, node_id in enumerate(sorted(nodes, key=lambda node_id: spots[node_id]))}
    arriving = {(target, name): at for at, _, target, name in numbered}
    leaving: dict[tuple[str, int], list[int]] = {}
    for at, link, *_ in numbered:
        leaving.setdefault((link.source, link.slot), []).append(at)
    numbers = [number for number in map(_id, nodes) if isinstance(number, int)]
    return {
        "last_node_id": max(numbers, default=0),
        "last_link_id": len(numbered),
        "nodes": [node.drawn(spots[node_id], order[node_id], arriving, leaving) for node_id, node in nodes.items()],
        "links": [
            [
                at,
                _id(link.source),
                link.slot,
                _id(target),
                nodes[target].slot(name),
                nodes[link.source].output(link.slot),
            ]
            for at, link, target, name in numbered
        ],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


@dataclass
class _Node:
    """One node of the prompt with its declaration; slots in the editor's order, sockets before widgets."""

    id: str
    written: Mapping[str, Any]
    declaration: Declaration
    sockets: list[tuple[str, str]] = field(default_factory=list)
    widgets: list[Widget] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs: Mapping[str, Any] = self.written.get("inputs") or {}
        if is_dynamic(self.declaration):
            self.declaration = laid_out(self.declaration, self._chosen, lambda name: name in self.inputs)
        self.widgets = widgets_of(self.declaration)
        known = list(declared_inputs(self.declaration))
        self.sockets = [(name, str(kind)) for name, kind, options, _ in known if widget_type(kind, options) is None]
        declared = {name for name, *_ in known}
        self.sockets += [(name, "*") for name, value in self.inputs.items() if as_link(value) and name not in declared]

    def _chosen(self, name: str, keys: list[str]) -> str:
        value = self.inputs.get(name)
        return value if isinstance(value, str) else next(iter(keys), "")

    @property
    def slots(self) -> list[tuple[str, str]]:
        """Name and type of every input slot."""
        return self.sockets + [(widget.name, widget.type) for widget in self.widgets if widget.in_prompt]

    @property
    def height(self) -> int:
        """About what the editor will draw."""
        texts = sum(bool((widget.options or {}).get("multiline")) for widget in self.widgets)
        rows = max(len(self.sockets), len(self.declaration.get("output") or ()))
        picture = PICTURE_HEIGHT if self.declaration.get("output_node") else 0
        plain = len(self.widgets) - texts
        return TITLE + SLOT_HEIGHT * rows + WIDGET_HEIGHT * plain + TEXT_HEIGHT * texts + picture

    def links(self) -> Iterator[tuple[Link, str, str]]:
        """Origin, own id, input name."""
        for name, _ in self.slots:
            link = as_link(self.inputs.get(name))
            if link is not None:
                yield link, self.id, name

    def slot(self, name: str) -> int:
        """The index of an input slot."""
        return next(at for at, (known, _) in enumerate(self.slots) if known == name)

    def output(self, slot: int) -> str:
        """The type of an output."""
        kinds = self.declaration.get("output") or ()
        kind = kinds[slot] if 0 <= slot < len(kinds) else "*"
        return "COMBO" if isinstance(kind, list) else str(kind)

    def drawn(
        self,
        spot: tuple[int, int],
        order: int,
        arriving: Mapping[tuple[str, str], int],
        leaving: Mapping[tuple[str, int], Sequence[int]],
    ) -> dict[str, Any]:
        """The node as the file has it."""
        class_type = _class(self.written)
        converted = {widget.name for widget in self.widgets if widget.in_prompt}
        names = self.declaration.get("output_name") or self.declaration.get("output") or ()
        meta = self.written.get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else None
        node: dict[str, Any] = {
            "id": _id(self.id),
            "type": class_type,
            "pos": list(spot),
            "size": [WIDTH, self.height],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": [
                {"name": name, "type": kind, "link": arriving.get((self.id, name))}
                | ({"widget": {"name": name}} if name in converted else {})
                for name, kind in self.slots
            ],
            "outputs": [
                {"name": str(name), "type": self.output(at), "links": list(leaving.get((self.id, at), ()))}
                for at, name in enumerate(names)
            ],
            "properties": {"Node name for S&R": class_type},
            "widgets_values": [self._value(widget) for widget in self.widgets],
        }
        return node | ({"title": title} if isinstance(title, str) else {})

    def _value(self, widget: Widget) -> Any:
        """What the widget shows: the prompt's literal; `fixed` for controls, because a replay must not draw seeds."""
        if widget.is_control:
            return "fixed" if widget.type == "COMBO" else ""
        value = self.inputs.get(widget.name)
        if value is None or as_link(value) is not None:
            return widget.default
        value = unwrap(value)
        is_dynamic = isinstance(value, str) and (widget.options or {}).get("dynamicPrompts")
        return escaped(value) if is_dynamic else value


def escaped(text: str) -> str:
    """A text that the editor's rewriting (choices in braces, comments) turns into `text`."""
    bare = re.sub(r"([{}|])", r"\\\1", text)
    return COMMENT_BEGINS.sub("{/}", bare)  # a choice of one


def _refuse_unknown(prompt: Mapping[str, Any], declarations: Mapping[str, Declaration]) -> None:
    unknown = sorted({_class(written) for written in prompt.values()} - set(declarations))
    if unknown:
        listed = ", ".join(f"{name!r}{suggestion(name, declarations)}" for name in unknown[:MOST_LISTED])
        more = f" and {len(unknown) - MOST_LISTED} more" if len(unknown) > MOST_LISTED else ""
        raise BadDocument(f"the workflow has nodes of unknown classes: {listed}{more}")


def _class(written: Any) -> str:
    return str(written.get("class_type", "")) if isinstance(written, Mapping) else ""


def _id(node_id: str) -> int | str:
    """Ids as the editor writes them: numbers where they are numbers."""
    return int(node_id) if node_id.isdecimal() and str(int(node_id)) == node_id else node_id
