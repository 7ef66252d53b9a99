"""A first manifest from a graph: which inputs become parameters, their names, ranges and roles, written as TOML."""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.editor import AppMode
from sigmagraph.engine.graph.node import Input, Node
from sigmagraph.engine.graph.workflow import Link, Workflow, WorkflowNode

__all__ = ["first_manifest", "slug_of"]

TYPES = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BOOLEAN": "boolean", "COMBO": "string"}
ROLES = {"seed": "seed", "noise_seed": "seed", "width": "width", "height": "height", "steps": "steps"}
ROLES |= {"batch_size": "batch"}
KEPT = frozenset({"filename_prefix"})
FORMATS = """
[parameters.image_format]
type = "string"
description = "Format of the pictures"
default = "png"
enum = ["jpeg", "png", "webp"]
role = "format"

[parameters.base64]
type = "boolean"
description = "Pictures as base64 instead of URLs"
default = false
role = "base64"
"""


def slug_of(name: str) -> str:
    """A name as paths carry it."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._") or "workflow"


def first_manifest(
    workflow: Workflow, nodes: Mapping[str, Node], slug: str, title: str, app: AppMode | None = None
) -> tuple[str, str]:
    """The manifest's text and the graph's: titles in the graph are made unique, because bindings go by title.

    What the author named for the editor's app mode, in `app`, is all that callers see, under those names.
    """
    titles = _titles(workflow)
    outputs = [
        i for i, node in workflow.nodes.items() if node.class_type in nodes and nodes[node.class_type].output_node
    ]
    if not outputs:
        raise BadValue("workflow", slug, "a graph with an output node such as SaveImage")
    prompt = workflow.prompt()
    for node_id, name in titles.items():
        prompt[node_id].setdefault("_meta", {})["title"] = name
    lines = [f"slug = {_text(slug)}", f"title = {_text(title)}", f"graph = {_text(slug + '.json')}"]
    lines += ["deadline_s = 300.0", "", "[reply]", f"images = {_text(titles[_shown(outputs, app)])}", "", "[price]"]
    lines += ["per_call = 0.0"]
    seen: Counter[str] = Counter()
    played: set[str] = set()
    settable = {
        f"{node_id}.{declared.name}": (node_id, declared, value)
        for node_id, declared, value in _settable(workflow, nodes)
    }
    for label, targets in _chosen(settable, app):
        node_id, declared, value = settable[targets[0]]
        name = _name(label or declared.name, titles[node_id], seen)
        binds = [f"{titles[settable[target][0]]}.{settable[target][1].name}" for target in targets]
        lines += ["", f"[parameters.{name}]", *_parameter(declared, value, binds, played)]
    return "\n".join(lines) + "\n" + FORMATS, json.dumps(prompt, indent=2) + "\n"


def _shown(outputs: Sequence[str], app: AppMode | None) -> str:
    """The output whose pictures are the reply: the first that the author shows, else the graph's first."""
    return next((place for place in (app.outputs if app is not None else ()) if place in outputs), outputs[0])


def _chosen(settable: Collection[str], app: AppMode | None) -> Iterator[tuple[str, Sequence[str]]]:
    """The parameters: a word for each and what it sets. Without an author's choice every input is one, unnamed."""
    if app is None or not app.inputs:
        yield from (("", [target]) for target in settable)
        return
    for offered in app.inputs:
        targets = [target for target in offered.targets if target in settable]
        if targets:
            yield _word(offered.name), targets


def _titles(workflow: Workflow) -> dict[str, str]:
    """A title per node, each once."""
    counts: Counter[str] = Counter()
    titles = {}
    for node_id, node in workflow.nodes.items():
        counts[node.title] += 1
        titles[node_id] = node.title if counts[node.title] == 1 else f"{node.title} {counts[node.title]}"
    return titles


def _settable(workflow: Workflow, nodes: Mapping[str, Node]) -> Iterator[tuple[str, Input, Any]]:
    """Inputs a caller may set: values in the graph that are no link, no file and no file name."""
    for node_id, node in workflow.nodes.items():
        for name, value in node.inputs.items():
            declared = nodes[node.class_type].declared.get(name) if node.class_type in nodes else None
            if declared is not None and _is_settable(declared, value, node):
                yield node_id, declared, value


def _is_settable(declared: Input, value: Any, node: WorkflowNode) -> bool:
    is_plain = isinstance(value, bool | int | float | str) and not isinstance(value, Link)
    return is_plain and declared.type in TYPES and declared.file is None and declared.name not in KEPT


def _name(name: str, title: str, seen: Counter[str]) -> str:
    """`text` of a node called Prompt is `prompt`; a name that is taken gets its node before it."""
    wanted = _word(title) if name == "text" else name
    if seen[wanted]:
        wanted = f"{_word(title)}_{name}"
    seen[wanted] += 1
    return wanted if seen[wanted] == 1 else f"{wanted}_{seen[wanted]}"


def _parameter(declared: Input, value: Any, binds: Sequence[str], played: set[str]) -> list[str]:
    kind = TYPES[declared.type]
    number = float(value) if kind == "number" else value
    lines = [f"type = {_text(kind)}", f"default = {_toml(number)}"]
    limits = (("minimum", declared.options.get("min")), ("maximum", declared.options.get("max")))
    finite = [(name, limit) for name, limit in limits if limit is not None and math.isfinite(limit)]
    lines += [f"{name} = {_toml(limit)}" for name, limit in finite if kind in ("integer", "number")]
    role = ROLES.get(declared.name)
    if role is not None and role not in played:
        played.add(role)
        lines += [f"role = {_text(role)}"] + (["random = -1"] if role == "seed" else [])
        lines += ["round_to = 16"] if role in ("width", "height") else []
    lines += [f"choices_of = {_text(binds[0])}"] if declared.type == "COMBO" else []
    tip = declared.options.get("tooltip")
    lines += [f"description = {_text(str(tip))}"] if tip else []
    return [*lines, f"binds = [{', '.join(map(_text, binds))}]"]


def _word(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower()).strip("_") or "value"


def _toml(value: Any) -> str:
    return _text(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def _text(value: str) -> str:
    """A TOML text: JSON's escapes are among TOML's, surrogate pairs apart."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
