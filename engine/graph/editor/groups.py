"""Group nodes, the older form of subgraphs: rewritten into subgraph definitions before anything else is read.

Each instance gets a definition of its own, so that its slots can be matched by their order.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sigmagraph.engine.graph.editor.records import INPUT_SIDE, OUTPUT_SIDE, list_at, object_at
from sigmagraph.engine.graph.editor.widgets import SEEDS, Declaration, Widget, widgets_of

PREFIXES = ("workflow>", "workflow/")
Written = dict[str, Any]


def with_groups(document: Mapping[str, Any], declarations: Mapping[str, Declaration]) -> Mapping[str, Any]:
    """The document with every group node as a subgraph instance; the document itself where it has none."""
    extra = document.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    if not isinstance(groups, dict) or not isinstance(document.get("nodes"), list):
        return document
    nodes: list[Any] = []
    definitions: list[Any] = []
    for node in document["nodes"]:
        name = _group_name(node)
        group = groups.get(name)
        if isinstance(group, dict) and isinstance(group.get("nodes"), list):
            group = _checked(group, f"extra.groupNodes[{name}]")
            definition = _definition(node, group)
            definitions.append(definition)
            node = _instance(node, definition, group, declarations)
        nodes.append(node)
    known = document.get("definitions")
    subgraphs = known.get("subgraphs") if isinstance(known, dict) else None
    listed = subgraphs if isinstance(subgraphs, list) else []
    return {**document, "nodes": nodes, "definitions": {"subgraphs": [*listed, *definitions]}}


def _group_name(node: Any) -> str | None:
    kind = node.get("type") if isinstance(node, dict) else None
    prefix = next((candidate for candidate in PREFIXES if isinstance(kind, str) and kind.startswith(candidate)), None)
    return kind[len(prefix) :] if isinstance(kind, str) and prefix is not None else None


def _checked(group: Written, place: str) -> Written:
    """The group with lists where lists belong and objects in them; links are [origin, slot, target, slot] by index."""
    nodes = [
        {
            **object_at(node, f"{place}.nodes[{at}]"),
            "inputs": _objects(node, "inputs", f"{place}.nodes[{at}]"),
            "outputs": _objects(node, "outputs", f"{place}.nodes[{at}]"),
        }
        for at, node in enumerate(group["nodes"])
    ]
    rows = [row[:4] for row in list_at(group, "links", place) if isinstance(row, list)]
    links = [row for row in rows if len(row) == 4 and all(type(end) is int and end >= 0 for end in row)]
    return {**group, "nodes": nodes, "links": links, "external": list_at(group, "external", place)}


def _objects(node: Any, key: str, place: str) -> list[Written]:
    return [object_at(item, f"{place}.{key}[{at}]") for at, item in enumerate(list_at(node, key, place))]


def _definition(node: Written, group: Written) -> Written:
    """The group's inside, with sides named as this instance names its slots."""
    inner = [
        {**member, "id": at, "inputs": [dict(slot) for slot in member["inputs"]]}
        for at, member in enumerate(group["nodes"])
    ]
    links = _inner_links(group, inner)
    arrivals = {(link["target_id"], link["target_slot"]) for link in links}
    departures = {(link["origin_id"], link["origin_slot"]) for link in links}
    external = set(_external(group))
    free = [
        (at, k)
        for at, member in enumerate(inner)
        for k, slot in enumerate(member["inputs"])
        if (at, k) not in arrivals and not _is_hidden(group, at, "input", slot.get("name"))
    ]
    is_widget = {place: bool(inner[place[0]]["inputs"][place[1]].get("widget")) for place in free}
    entries = sorted(free, key=lambda place: is_widget[place])
    exits = [
        (at, k)
        for at, member in enumerate(inner)
        for k in range(len(member["outputs"]))
        if ((at, k) not in departures or (at, k) in external) and not _is_hidden(group, at, "output", k)
    ]
    inputs = [
        _entry(inner, links, place, name) for place, name in zip(entries, _names(node, inner, entries), strict=True)
    ]
    outputs = [_exit(inner, links, place) for place in exits]
    identity = f"group node {node.get('id')}"
    return {"id": identity, "nodes": inner, "links": links, "inputs": inputs, "outputs": outputs}


def _external(group: Written) -> Iterator[tuple[int, int]]:
    """Inner outputs that were linked to outside. Entries that hold a node, not its index, are skipped."""
    for entry in group["external"]:
        if isinstance(entry, list) and len(entry) >= 2 and all(type(number) is int for number in entry[:2]):
            yield entry[0], entry[1]


def _is_hidden(group: Written, at: int, side: str, name: Any) -> bool:
    """Whether the group's settings hide a slot: instances do not list it. Hidden widgets keep their place in values."""
    found: Any = group.get("config")
    for key in (str(at), side, str(name)):
        found = found.get(key) if isinstance(found, dict) else None
    return isinstance(found, dict) and found.get("visible") is False


def _inner_links(group: Written, inner: list[Written]) -> list[Written]:
    """Links between inner nodes, renumbered; inner slots name them, and nothing else."""
    for slot in (slot for member in inner for slot in member["inputs"]):
        slot["link"] = None
    links: list[Written] = []
    for origin, origin_slot, target, target_slot in group["links"]:
        if target < len(inner) and target_slot < len(inner[target]["inputs"]):
            _connect(links, origin, origin_slot, target, target_slot)
            inner[target]["inputs"][target_slot]["link"] = links[-1]["id"]
    return links


def _connect(links: list[Written], origin: Any, origin_slot: int, target: Any, target_slot: int) -> None:
    ends = {"origin_id": origin, "origin_slot": origin_slot, "target_id": target, "target_slot": target_slot}
    links.append({"id": len(links) + 1, **ends})


def _names(node: Written, inner: list[Written], entries: list[tuple[int, int]]) -> Iterator[str]:
    """The instance's names for its slots: sockets and converted widgets each in their own order."""
    slots = _objects(node, "inputs", f"node {node.get('id')}")
    sockets = iter([slot for slot in slots if not slot.get("widget")])
    converted = iter([slot for slot in slots if slot.get("widget")])
    for at, k in entries:
        slot = inner[at]["inputs"][k]
        named = next(converted if slot.get("widget") else sockets, slot)
        yield str(named.get("name", ""))


def _entry(inner: list[Written], links: list[Written], place: tuple[int, int], name: str) -> Written:
    at, k = place
    slot = inner[at]["inputs"][k]
    side = len([link for link in links if str(link["origin_id"]) == INPUT_SIDE])
    _connect(links, INPUT_SIDE, side, at, k)
    slot["link"] = links[-1]["id"]
    return {"name": name, "type": slot.get("type"), "linkIds": [slot["link"]]}


def _exit(inner: list[Written], links: list[Written], place: tuple[int, int]) -> Written:
    at, k = place
    slot = inner[at]["outputs"][k]
    _connect(links, at, k, OUTPUT_SIDE, 0)
    return {"name": slot.get("name"), "type": slot.get("type"), "linkIds": [links[-1]["id"]]}


def _instance(node: Written, definition: Written, group: Written, declarations: Mapping[str, Declaration]) -> Written:
    """The instance with one `proxyWidgets` entry for each place in its `widgets_values`.

    Older inner nodes list a slot for a converted widget only, newer ones for every widget; then the slot means a
    conversion only where another inner node is linked to it. Inner nodes may be older than today's widgets: then they
    have as many as they hold values. The number of values says which of these a file is, or comes nearest to.
    """
    inside = {(x["target_id"], x["target_slot"]) for x in definition["links"] if str(x["origin_id"]) != INPUT_SIDE}
    readings = [
        [
            [str(at), name]
            for at, inner in enumerate(definition["nodes"])
            for name in _widget_names(
                inner, declarations.get(str(inner.get("type"))), _converted(at, inner, among), is_cut=is_cut
            )
        ]
        for is_cut in (False, True)
        for among in (None, inside)
    ]
    values = node.get("widgets_values")
    stored = len(values) if isinstance(values, list) else 0
    proxies = min(readings, key=lambda reading: abs(len(reading) - stored))
    kept = node.get("properties")
    properties = {**(kept if isinstance(kept, dict) else {}), "proxyWidgets": proxies}
    return {**node, "type": definition["id"], "properties": properties}


def _converted(at: int, inner: Written, among: set[tuple[Any, Any]] | None) -> set[str]:
    """The widgets of inner node `at` that have a slot (one of `among` where that is given)."""
    return {
        str(slot["widget"].get("name"))
        for k, slot in enumerate(inner["inputs"])
        if isinstance(slot.get("widget"), dict) and (among is None or (at, k) in among)
    }


def _widget_names(
    inner: Written, declaration: Declaration | None, converted: set[str], *, is_cut: bool
) -> Iterator[str]:
    """The inner node's widgets that were not converted; controls are skipped when values are read."""
    stored = inner.get("widgets_values")
    values = stored if isinstance(stored, list) else []
    if inner.get("type") == "PrimitiveNode":
        yield from ("value", *("$$control" for _ in values[1:]))
        return
    widgets = widgets_of(declaration) if declaration is not None else _listed(inner, len(values))
    is_dropped = False
    for widget in widgets[: len(values)] if is_cut and isinstance(stored, list) else widgets:
        if widget.is_control:
            yield from () if is_dropped else ("$$control",)
            continue
        is_dropped = widget.name in converted
        if not is_dropped:
            yield widget.name if widget.in_prompt else "$$button"


def _listed(inner: Written, count: int) -> list[Widget]:
    """The widgets of a class that nobody declares, by its slots; a value too many is a seed's control."""
    slots = [slot["widget"].get("name") for slot in inner["inputs"] if isinstance(slot.get("widget"), dict)]
    widgets: list[Widget] = []
    for name in map(str, slots):
        widgets.append(Widget(name, "*"))
        if name in SEEDS and count == len(slots) + 1:
            widgets.append(Widget("control_after_generate", "COMBO", in_prompt=False, is_control=True))
    return widgets
