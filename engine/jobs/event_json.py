"""Events as plain JSON and back: what the log stores and what travels between processes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import UnionType
from typing import Any, Union, get_args, get_origin

from sigmagraph.engine.execution.events import NodeProgress, RunFailed
from sigmagraph.engine.jobs.events import Body, Ended
from sigmagraph.engine.jobs.job import Failure, State

__all__ = ["decode", "encode", "plain"]

LONGEST_TEXT = 4096
DEEPEST = 32


def _members(union: Any) -> list[type[Any]]:
    if get_origin(union) in (UnionType, Union):
        return [member for part in get_args(union) for member in _members(part)]
    return [union]


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


TYPES: dict[str, type[Any]] = {_snake(kind.__name__): kind for kind in _members(Body)}
NAMES = {kind: name for name, kind in TYPES.items()}


def encode(body: Body) -> tuple[str, dict[str, Any]]:
    """The event's name and its fields as JSON values; a preview is left out."""
    values = {field.name: getattr(body, field.name) for field in fields(body)}
    if isinstance(body, NodeProgress):
        values["preview"] = None
    longest = LONGEST_TEXT if isinstance(body, RunFailed) else None
    return NAMES[type(body)], {name: _record(value, longest) for name, value in values.items()}


def decode(name: str, values: Mapping[str, Any]) -> Body:
    """The event again; fields it no longer has are dropped."""
    kind = TYPES[name]
    known = {field.name for field in fields(kind)}
    given = {field: value for field, value in values.items() if field in known}
    if kind is Ended:
        failure = given.get("failure")
        given = {"state": State(given["state"]), "failure": Failure(**failure) if failure else None}
    event: Body = kind(**given)
    return event


def _record(value: Any, longest: int | None) -> Any:
    return asdict(value) if isinstance(value, Failure) else plain(value, longest)


def plain(value: Any, longest: int | None = None, depth: int = 0) -> Any:
    """The value as JSON can hold it: numbers and texts as they are, anything opaque by the name of its type.

    JSON has neither NaN nor infinity: readers would refuse all of a list of jobs for one of them.
    Texts are cut to `longest`: what a failed node was given may be of any size.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value) if longest is None or len(value) <= longest else f"{value[:longest]}..."
    if depth >= DEEPEST:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return {str(key): plain(item, longest, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, longest, depth + 1) for item in value]
    return f"<{type(value).__name__}>"
