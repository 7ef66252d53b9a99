"""Single values as nodes of their own, and one that shows any value."""

import json
from typing import Annotated, Any

from sigmagraph.engine.graph.node import Extra, Multiline, Output, Range, Socket, UiResult, node
from sigmagraph.nodes.support.lengths import bounded

__all__ = ["NODES"]

LARGEST = 2**63 - 1


@node("PrimitiveString", category="utils/primitive", display_name="String")
def primitive_string(*, value: Annotated[str, Extra({"multiline": False})]) -> str:
    """A string of one line."""
    return value


@node("PrimitiveStringMultiline", category="utils/primitive", display_name="String (Multiline)")
def primitive_string_multiline(*, value: Annotated[str, Multiline()]) -> str:
    """A string of any number of lines."""
    return value


@node("PrimitiveInt", category="utils/primitive", display_name="Int")
def primitive_int(*, value: Annotated[int, Range(-LARGEST, LARGEST, control_after_generate=True)]) -> int:
    """A whole number."""
    return value


@node("PrimitiveFloat", category="utils/primitive", display_name="Float")
def primitive_float(*, value: Annotated[float, Range(-LARGEST, LARGEST)]) -> float:
    """A number."""
    return value


@node("PrimitiveBoolean", category="utils/primitive", display_name="Boolean")
def primitive_boolean(*, value: bool) -> bool:
    """True or false."""
    return value


@node("SeedNode", category="utils/primitive", display_name="Seed", outputs=[Output("INT", "seed")])
def seed_node(*, seed: Annotated[int, Range(0, LARGEST, control_after_generate=True)] = 0) -> int:
    """A seed for several nodes."""
    return seed


@node("PreviewAny", category="utils", display_name="Preview Any", output_node=True)
def preview_any(*, source: Annotated[Any, Socket("*"), Extra({})]) -> UiResult:
    """Show a value: strings and numbers as they are, lists and dictionaries as JSON where they can be."""
    return UiResult(ui={"text": (_shown(source),)})


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return bounded(value, "source")
    if isinstance(value, int | float | bool):
        return str(value)
    if value is None:
        return "None"
    try:
        return bounded(json.dumps(value), "source")
    except (TypeError, ValueError, RecursionError):
        return _described(value)


def _described(value: Any) -> str:
    try:
        return bounded(str(value), "source")
    except Exception:  # noqa: BLE001  # a value of a node pack may raise anything here
        return "source exists, but could not be serialized."


NODES = (
    primitive_string,
    primitive_string_multiline,
    primitive_int,
    primitive_float,
    primitive_boolean,
    seed_node,
    preview_any,
)
