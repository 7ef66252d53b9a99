"""One literal against one declared input: conversion by Python's rules, then range, grid and option list."""

import math
from collections.abc import Callable
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.node import Choice, Input, Services
from sigmagraph.engine.graph.problems import Place, Problem

Lists = Callable[[Input], list[Choice] | None]
WRAPPER = "__value__"


def unwrap(value: Any) -> Any:
    """`{"__value__": [...]}` is how a list literal travels, because a bare list would read as a link."""
    return value[WRAPPER] if type(value) is dict and WRAPPER in value else value


def wrap(value: Any) -> Any:
    """The way back, so that a normalised prompt can be posted again."""
    return {WRAPPER: value} if type(value) is list else value


def convert(place: Place, value: Any) -> tuple[Any, Problem | None]:
    """The literal as its declared type, or what is wrong with it."""
    converter = CONVERTERS.get(str(place.input.type))
    if converter is None or place.input.choices is not None:
        return value, None
    try:
        return converter(value), None
    except (ValueError, TypeError, OverflowError) as error:
        return value, place.wrong_type(value, str(error))


def check(place: Place, value: Any, lists: Lists, services: Services | None) -> Problem | None:
    """Bounds, grid and membership of a converted literal."""
    if isinstance(value, int | float) and not isinstance(value, bool) and place.input.type in ("INT", "FLOAT"):
        return _check_number(place, value)
    if place.input.is_checked_combo:
        return _check_choice(place, value, lists(place.input) or [], services)
    return None


def _check_number(place: Place, value: float) -> Problem | None:
    low, high = (_bound(place.input.options.get(name)) for name in ("min", "max"))
    if (low is not None and value < low) or (high is not None and value > high):
        return place.out_of_range(value, low, high)
    span = place.input.range
    if span is not None and (step := span.allowed_step) and (value - span.low) % step:
        return place.off_grid(value, span.low, step)
    return None


def _bound(said: Any) -> float | None:
    """A bound that is a number; packs may write anything there."""
    return said if isinstance(said, int | float) else None


def _check_choice(place: Place, value: Any, allowed: list[Choice], services: Services | None) -> Problem | None:
    values = value if isinstance(value, list) and place.input.options.get("multiselect") else [value]
    for item in values:
        if item not in allowed and not _is_file(place.input, item, services):
            return place.not_in_list(item, allowed)
    return None


def _is_file(declared: Input, value: Any, services: Services | None) -> bool:
    """Files that resolve count although no list shows them: `picture.png [output]`, or one uploaded a moment ago."""
    if declared.file is None or services is None or not isinstance(value, str):
        return False
    try:
        declared.file.paths(services, value)
    except (EngineError, OSError, ValueError):  # no such file, or a name the system refuses
        return False
    return True


def _integer(value: Any) -> int:
    return value if type(value) is int else int(value)


def _number(value: Any) -> float:
    number = float(value)
    if math.isnan(number):
        raise ValueError("NaN is not a number")
    return number


def _text(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        raise TypeError(f"expected a string, not {'null' if value is None else type(value).__name__}")
    return value if type(value) is str else str(value)


def _truth(value: Any) -> bool:
    if value is None or isinstance(value, dict | list):
        raise TypeError(f"expected true or false, not {'null' if value is None else type(value).__name__}")
    if isinstance(value, str) and value.strip().lower() in ("false", "true"):
        return value.strip().lower() == "true"
    return bool(value)


CONVERTERS: dict[str, Callable[[Any], Any]] = {"INT": _integer, "FLOAT": _number, "STRING": _text, "BOOLEAN": _truth}
