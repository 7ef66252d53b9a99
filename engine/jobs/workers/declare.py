"""Node declarations as data: what a worker that has the nodes tells a front that has none.

The front's nodes have names, inputs and outputs but nothing to call. Lists that a function gives are asked for once,
in the worker; lists of files are left to the front, which sees the same folders.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sigmagraph.engine.graph.annotations import FileIn, Options, Range
from sigmagraph.engine.graph.dynamic import Autogrow, Dynamic, DynamicCombo, DynamicSlot, MatchType
from sigmagraph.engine.graph.node import MISSING, Input, Node, Output, Services
from sigmagraph.engine.graph.renewal import renewed
from sigmagraph.engine.graph.replacements import Replacement
from sigmagraph.engine.jobs.event_json import plain

__all__ = ["declarations", "declared"]

LOG = logging.getLogger(__name__)
PLAIN = (
    "class_type",
    "category",
    "output_node",
    "lane",
    "revision",
    "display_name",
    "description",
    "module",
    "source",
    "deprecated",
    "experimental",
    "input_is_list",
    "shares_results",
    "is_trusted",
)


def declarations(nodes: Iterable[Node], services: Services | None) -> list[dict[str, Any]]:
    """Every node as JSON values; one that cannot be told so is left out and logged."""
    records: list[dict[str, Any]] = []
    for node in nodes:
        try:
            records.append(_node(renewed(node), services, node.replaces))
        except Exception as error:  # noqa: BLE001  # a list that a pack's function no longer gives, say
            LOG.warning("node %s is left out: %s: %s", node.class_type, type(error).__name__, error)
    return records


def declared(records: Iterable[Mapping[str, Any]]) -> dict[str, Node]:
    """The nodes again, by name; `validator` is set where only the worker can check the inputs."""
    return {record["class_type"]: _declared(record) for record in records}


def _node(node: Node, services: Services | None, replaces: Sequence[Replacement]) -> dict[str, Any]:
    return {name: getattr(node, name) for name in PLAIN} | {
        "inputs": [_input(socket, services) for socket in node.inputs],
        "outputs": [_output(output) for output in node.outputs],
        "checks_itself": node.validator is not None,
        "replaces": [_values(replacement.wire()) for replacement in replaces],
    }


def _input(socket: Input, services: Services | None) -> dict[str, Any]:
    choices = socket.choices
    return {
        "name": socket.name,
        "type": str(socket.type),
        "group": socket.group,
        "options": _values(socket.options),
        "default": {} if socket.default is MISSING else {"value": _values(socket.default)},
        "choices": None if choices is None else {"choices": _values(choices.list(services)), "named": choices.named},
        "file": None if socket.file is None else asdict(socket.file),
        "range": None if socket.range is None else asdict(socket.range),
        "match": None if socket.match is None else asdict(socket.match),
        "dynamic": None if socket.dynamic is None else _dynamic(socket.dynamic, services),
    }


def _dynamic(dynamic: Dynamic, services: Services | None) -> dict[str, Any]:
    """A dynamic input by the names of its parts, with the inputs it stands for."""
    if isinstance(dynamic, DynamicCombo):
        options = {key: [_input(socket, services) for socket in inputs] for key, inputs in dynamic.options.items()}
        return {"combo": options}
    if isinstance(dynamic, DynamicSlot):
        return {
            "slot": _input(dynamic.slot, services),
            "inputs": [_input(socket, services) for socket in dynamic.inputs],
        }
    names = {"names": list(dynamic.names), "least": dynamic.least, "prefix": dynamic.prefix}
    return {"template": _input(dynamic.template, services), **names}


def _output(output: Output) -> dict[str, Any]:
    choices = None if output.choices is None else _values(output.choices)
    return asdict(replace(output, choices=None)) | {"type": str(output.type), "choices": choices}


def _values(value: Any) -> Any:
    """Options are JSON already, but for what a node pack puts there.

    JSON has neither infinity nor NaN: a bound of that kind bounds nothing and is left out, as is such a default.
    """
    if isinstance(value, Mapping):
        return {str(key): _values(item) for key, item in value.items() if not _is_beyond_json(item)}
    if isinstance(value, list | tuple):
        return [None if _is_beyond_json(item) else _values(item) for item in value]
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    return None if _is_beyond_json(value) else plain(value)


def _is_beyond_json(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _declared(record: Mapping[str, Any]) -> Node:
    return Node(
        **{name: record[name] for name in PLAIN},
        inputs=tuple(_declared_input(entry) for entry in record["inputs"]),
        outputs=tuple(_declared_output(entry) for entry in record["outputs"]),
        function=_elsewhere,
        validator=_elsewhere if record["checks_itself"] else None,
        replaces=tuple(Replacement.of_wire(replacement) for replacement in record["replaces"]),
    )


def _declared_input(record: Mapping[str, Any]) -> Input:
    choices, file, span = record["choices"], record["file"], record["range"]
    return Input(
        record["name"],
        record["type"],
        record["group"],
        record["options"],
        record["default"].get("value", MISSING),
        None if choices is None else Options(tuple(choices["choices"]), choices["named"]),
        None if file is None else FileIn(**file),
        None if span is None else Range(**span),
        None if record["dynamic"] is None else _declared_dynamic(record["dynamic"]),
        None if record["match"] is None else MatchType(**record["match"]),
    )


def _declared_dynamic(record: Mapping[str, Any]) -> Dynamic:
    if "combo" in record:
        return DynamicCombo({key: [_declared_input(entry) for entry in some] for key, some in record["combo"].items()})
    if "slot" in record:
        return DynamicSlot(_declared_input(record["slot"]), [_declared_input(entry) for entry in record["inputs"]])
    return Autogrow(_declared_input(record["template"]), tuple(record["names"]), record["least"], record["prefix"])


def _declared_output(record: Mapping[str, Any]) -> Output:
    choices: Sequence[Any] | None = record["choices"]
    match = None if record["match"] is None else MatchType(**record["match"])
    return Output(**{**record, "choices": None if choices is None else tuple(choices), "match": match})


def _elsewhere(**inputs: Any) -> Any:
    """What stands for a node's code in the front."""
    raise AssertionError("nodes run in workers only")
