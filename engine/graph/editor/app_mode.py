"""What a workflow offers in the editor's app mode: `extra.linearData` names widgets and output nodes of a drawing.

An input is `[node, widget]`; the node may be a subgraph instance, whose promoted widgets lie further in, or
`GRAPH:NODE:WIDGET` with the id of a canvas. The prompt's ids and input names come out.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.groups import with_groups
from sigmagraph.engine.graph.editor.records import INPUT_SIDE, EditorNode
from sigmagraph.engine.graph.editor.scope import Scope, every_scope, input_name, unfold
from sigmagraph.engine.graph.editor.widgets import Declaration

__all__ = ["AppInput", "AppMode", "app_mode"]


@dataclass(frozen=True, slots=True)
class AppInput:
    """One widget that is offered: its name, unique here, and the `NODE.INPUT`s of the prompt it sets."""

    name: str
    targets: Sequence[str]


@dataclass(frozen=True, slots=True)
class AppMode:
    """What is offered, in the order the author chose; `outputs` are nodes of the prompt."""

    inputs: Sequence[AppInput]
    outputs: Sequence[str]


def app_mode(
    document: Mapping[str, Any] | None, declarations: Mapping[str, Declaration], prompt: Mapping[str, Any]
) -> AppMode | None:
    """What the document names for app mode; None where it names nothing that the prompt still has as a value.

    A workflow that came without a drawing (`document` None) offers nothing.
    """
    extra = document.get("extra") if document is not None else None
    said = extra.get("linearData") if isinstance(extra, Mapping) else None
    if document is None or not isinstance(said, Mapping):
        return None
    try:
        root = unfold(with_groups(document, declarations), declarations, [])
    except BadDocument:  # who converts it is told why
        return None
    found: list[tuple[str, EditorNode, list[str]]] = []
    for scope, node_id, widget in _named(root, document, _listed(said, "inputs")):
        node = scope.drawing.nodes[node_id]
        targets = [place for place in _places(scope, node, widget) if _is_value(prompt, *place)]
        if targets:
            found.append((widget, node, [f"{inner}.{name}" for inner, name in targets]))
    outputs = [str(place) for place in _listed(said, "outputs") if str(place) in prompt]
    inputs = _with_names(found)
    return AppMode(inputs, outputs) if inputs or outputs else None


def _listed(said: Mapping[str, Any], name: str) -> Sequence[Any]:
    rows = said.get(name)
    return rows if isinstance(rows, list) else ()


def _named(root: Scope, document: Mapping[str, Any], rows: Sequence[Any]) -> Iterator[tuple[Scope, str, str]]:
    """The canvas, node and widget that each row means; rows that mean none are left out, as on the page."""
    known = _nodes_by_place(root, document)
    for row in rows:
        if not isinstance(row, list) or len(row) < 2 or not isinstance(row[1], str):
            continue
        canvas, _, rest = str(row[0]).partition(":")
        found = [known[place] for place in ((str(row[0]), ""), (rest.partition(":")[0], canvas)) if place in known]
        if found:
            _, scope, node_id = min(found, key=itemgetter(0))
            yield scope, node_id, row[1]


def _nodes_by_place(root: Scope, document: Mapping[str, Any]) -> Mapping[tuple[str, str], tuple[int, Scope, str]]:
    """The first node at every place: by its id in the prompt, and by its own id with that of its canvas.

    Each comes with the number of its canvas. One look at all nodes, whatever the number of rows.
    """
    found: dict[tuple[str, str], tuple[int, Scope, str]] = {}
    for number, scope in enumerate(every_scope(root)):
        canvas = document.get("id") if scope.host is None else scope.host.type
        for node_id in scope.drawing.nodes:
            here = number, scope, node_id
            found.setdefault((scope.path + node_id, ""), here)
            if isinstance(canvas, str) and canvas:
                found.setdefault((node_id, canvas), here)
    return found


def _places(scope: Scope, node: EditorNode, widget: str) -> Iterator[tuple[str, str]]:
    """The nodes of the prompt and their inputs that a widget sets, through instances to the innermost ones."""
    waiting = [(scope, node, widget)]
    while waiting:
        here, at, name = waiting.pop(0)
        inner = here.children.get(at.id)
        if inner is None:
            yield here.id_of(at), name
            continue
        proxies = at.properties.get("proxyWidgets")
        for entry in proxies if isinstance(proxies, list) else ():
            if isinstance(entry, list) and len(entry) > 1 and entry[1] == name and str(entry[0]) in inner.drawing.nodes:
                waiting.append((inner, inner.drawing.nodes[str(entry[0])], name))
        for k, side in enumerate(inner.drawing.inputs):
            if side.name == name:
                waiting += list(_behind(inner, k))


def _behind(inner: Scope, k: int) -> Iterator[tuple[Scope, EditorNode, str]]:
    """What the definition's input `k` is drawn to."""
    for wire in inner.drawing.leaving.get((INPUT_SIDE, k), ()):
        node = inner.drawing.nodes.get(wire.target)
        if node is not None:
            yield inner, node, input_name(node, wire.id, wire.target_slot)


def _is_value(prompt: Mapping[str, Any], node_id: str, name: str) -> bool:
    """Whether the prompt has a value there, not a link."""
    inputs = prompt[node_id].get("inputs", {}) if node_id in prompt else {}
    return name in inputs and not isinstance(inputs[name], list)


def _with_names(found: Sequence[tuple[str, EditorNode, list[str]]]) -> list[AppInput]:
    """The label on the page, or the widget's name; with the node's title before it where it would come twice."""
    labels = [
        next((slot.label for slot in node.inputs if slot.name == name and slot.label), name) for name, node, _ in found
    ]
    counts = Counter(labels)
    names = [
        label if counts[label] == 1 else f"{node.title or node.type}.{label}"
        for label, (_, node, _) in zip(labels, found, strict=True)
    ]
    seen: Counter[str] = Counter()
    inputs = []
    for name, (_, _, targets) in zip(names, found, strict=True):
        seen[name] += 1
        inputs.append(AppInput(name if seen[name] == 1 else f"{name} {seen[name]}", targets))
    return inputs
