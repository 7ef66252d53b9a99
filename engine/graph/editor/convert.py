"""An editor document into an API prompt, by the rules the editor itself follows when its user presses Run."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sigmagraph.engine.graph.declarations import known_replacements
from sigmagraph.engine.graph.editor.dynamic_widgets import is_dynamic
from sigmagraph.engine.graph.editor.groups import with_groups
from sigmagraph.engine.graph.editor.links import Known, Value, resolve, setter_of
from sigmagraph.engine.graph.editor.page_nodes import GETTERS, PAGE_ONLY, name_of
from sigmagraph.engine.graph.editor.primitives import primitive_values
from sigmagraph.engine.graph.editor.records import EditorNode
from sigmagraph.engine.graph.editor.scope import Scope, every_scope, unfold
from sigmagraph.engine.graph.editor.texts import SAVERS, Choose, dynamic_prompt, file_prefix
from sigmagraph.engine.graph.editor.widgets import (
    Declaration,
    Places,
    Widget,
    assumption,
    declaration_of,
    places_of,
    stored_values,
)
from sigmagraph.engine.graph.literals import wrap
from sigmagraph.engine.graph.replacements import RENAMED
from sigmagraph.engine.graph.workflow import Link

# English names the editor has of its own, for classes that declare none
TITLES = {"ImageScaleToTotalPixels": "Scale Image to Total Pixels", "ImageBlur": "Image Blur"}


def convert(
    document: Mapping[str, Any],
    declarations: Mapping[str, Declaration],
    *,
    choose: Choose = random.choice,
    now: datetime | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The API prompt of an editor document, and warnings about what could not be carried over.

    `declarations` are node classes in `/object_info` form. `choose` resolves `{a|b}` in prompts.
    """
    warnings: list[str] = []
    root = unfold(with_groups(document, declarations), declarations, warnings)
    conversion = Conversion(root, declarations, choose, now or datetime.now().astimezone(), warnings)
    return conversion.prompt(), conversion.warnings


@dataclass
class Conversion:
    """One document on its way."""

    root: Scope
    declarations: Mapping[str, Declaration]
    choose: Choose
    now: datetime
    warnings: list[str] = field(default_factory=list)
    _places: dict[str, Places | None] = field(default_factory=dict)
    _known: Known = field(default_factory=dict)

    def prompt(self) -> dict[str, Any]:
        """Every node that runs, with widget values first and links over them."""
        self._primitives = primitive_values(
            self.root, self.declarations, lambda text: file_prefix(text, self._look_up, self.now)
        )
        emitted = {
            scope.id_of(node): self._node(scope, node)
            for scope in self._running_scopes()
            for node in scope.drawing.nodes.values()
            if node.runs and node.type not in PAGE_ONLY and node.id not in scope.children
        }
        self._warn_of_getters()
        for node in emitted.values():
            inputs = node["inputs"]
            lost = [n for n, v in inputs.items() if type(v) is Link and v.source not in emitted]
            for name in lost:
                del inputs[name]
            node["inputs"] = {name: list(v) if type(v) is Link else v for name, v in inputs.items()}
        return emitted

    def _warn_of_getters(self) -> None:
        """Getting nodes whose name nothing sets hand nothing on."""
        for scope in every_scope(self.root):
            for node in scope.drawing.nodes.values():
                if node.type in GETTERS and node.runs and setter_of(scope, node) is None:
                    self.warnings.append(f"node {scope.id_of(node)} ({node.type}): nothing sets {name_of(node)!r}")

    def _running_scopes(self) -> list[Scope]:
        """Scopes none of whose instances is muted or bypassed."""
        stopped: set[int] = set()
        for scope in every_scope(self.root):
            is_stopped = scope.host is not None and not scope.host.runs
            if is_stopped or (scope.outer is not None and id(scope.outer) in stopped):
                stopped.add(id(scope))
        return [scope for scope in every_scope(self.root) if id(scope) not in stopped]

    def _node(self, scope: Scope, node: EditorNode) -> dict[str, Any]:
        class_type = RENAMED.get(node.type, node.type)
        places = self._places_of(class_type, node)
        gone = known_replacements(self.declarations).get(class_type)
        if places is None and gone is None:
            self.warnings.append(f"node {scope.id_of(node)}: class {class_type!r} is unknown; its widgets are lost")
        inputs = self._widget_values(scope, node, places) if places is not None else {}
        if gone is not None:
            inputs = {name: wrap(value) for name, value in _listed(node, gone.widgets).items()}
        for slot, socket in enumerate(node.inputs):
            origin = resolve(scope, node, slot, self._known)
            if isinstance(origin, Value):
                inputs[socket.name] = wrap(origin.value)
            elif origin is not None:
                inputs[socket.name] = origin
            elif socket.link is not None and socket.link not in scope.drawing.wires:
                self.warnings.append(f"node {scope.id_of(node)}.{socket.name}: link {socket.link} is not in the file")
        title = node.title or TITLES.get(class_type) or self._display_name(class_type) or class_type
        return {"inputs": inputs, "class_type": class_type, "_meta": {"title": title}}

    def _places_of(self, class_type: str, node: EditorNode) -> Places | None:
        """The widgets of a class, read once, or of this node where inputs are dynamic; None for an unknown class."""
        if class_type not in self._places:
            declaration = self.declarations.get(class_type)
            if declaration is not None and is_dynamic(declaration):
                return places_of(declaration_of(node, declaration))
            self._places[class_type] = places_of(declaration) if declaration is not None else None
        return self._places[class_type]

    def _display_name(self, class_type: str) -> str:
        return str((self.declarations.get(class_type) or {}).get("display_name") or "")

    def _widget_values(self, scope: Scope, node: EditorNode, places: Places) -> dict[str, Any]:
        stored = stored_values(node, places)
        node_id = scope.id_of(node)
        doubt = assumption(node, places)
        if doubt is not None:
            self.warnings.append(f"node {node_id} ({node.type}): {doubt}")
        inputs: dict[str, Any] = {}
        for widget in places.widgets:
            if not widget.in_prompt:
                continue
            value = scope.overrides.get((node.id, widget.name), stored[widget.name])
            value = self._primitives.get((node_id, widget.name), value)
            inputs[widget.name] = wrap(self._text(node, widget, value) if isinstance(value, str) else value)
        return inputs

    def _text(self, node: EditorNode, widget: Widget, value: str) -> str:
        if (widget.options or {}).get("dynamicPrompts"):
            return dynamic_prompt(value, self.choose)
        if widget.name == "filename_prefix" and node.type in SAVERS:
            return file_prefix(value, self._look_up, self.now)
        return value

    def _look_up(self, label: str, widget: str) -> str | None:
        """The value of a widget on the first node of that search name, else of that title."""
        nodes = [node for scope in every_scope(self.root) for node in scope.drawing.nodes.values()]
        named = [node for node in nodes if node.properties.get("Node name for S&R") == label]
        for node in named or [node for node in nodes if node.title == label]:
            places = self._places_of(node.type, node)
            values = stored_values(node, places) if places is not None and node.type not in PAGE_ONLY else {}
            return str(values[widget]) if widget in values else None
        return None


def _listed(node: EditorNode, names: Sequence[str]) -> dict[str, Any]:
    """The values of a class that is gone, by the names its replacement gives for their places."""
    if isinstance(node.values, dict):
        return {name: node.values[name] for name in names if name in node.values}
    return dict(zip(names, node.values, strict=False)) if isinstance(node.values, list) else {}
