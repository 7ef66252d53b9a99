"""What a caller hands over, looked at where it is handed over: numbers, functions, and what the functions give back."""

import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor

from sigmagraph.engine.errors import BadPrediction, BadValue, UnknownName

Part = TypeVar("Part")


def whole_number(place: str, value: object, allowed: str) -> int:
    """An int: of Python, or of a library that has its own, such as numpy's. A boolean is not one."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # what has no index raises
    except (TypeError, RuntimeError):  # a tensor of several numbers raises either
        raise BadValue(place, value, allowed) from None


def check_number(place: str, value: object, allowed: str = "a number") -> None:
    """Refuse what is not a number; infinity is one, as the end of a range that has none."""
    try:
        is_number = not isinstance(value, bool | str) and not math.isnan(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        is_number = False
    if not is_number:
        raise BadValue(place, value, allowed)


def check_numbers(record: Any) -> None:
    """Refuse a record of which a field that is declared as a float is not a number."""
    for one in fields(record):
        if one.type is float:
            check_number(f"{type(record).__name__}.{one.name}", getattr(record, one.name))


def declared_record(kind: type[Part], name: str, function: object, declared: Mapping[str, Any]) -> Part:
    """A part of that name as a decorator declares it: every further word is one of its fields."""
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]  # a dataclass, which types cannot say
    for word in declared:
        if word not in known:
            raise UnknownName(f"field of {kind.__name__} {name}", word, known)
    made: Callable[..., Part] = kind
    return made(name, function, **declared)


def ask(place: str, function: Callable[..., object], given: Sequence[object], wanted: str, **named: object) -> Any:
    """Call a function of somebody else's. One that cannot be called with these values is told so by its signature."""
    try:
        return function(*given, **named)
    except TypeError as error:
        if (taken := unlike(function, given, named)) is None:
            raise
        raise BadValue(place, taken, wanted) from error


def unlike(function: object, given: Sequence[object], named: dict[str, object]) -> str | None:
    """None where `function` takes these values, or does not say what it takes; else what it takes."""
    if not callable(function):
        return type(function).__name__
    try:
        signature = inspect.signature(getattr(function, "forward", function))  # torch's modules
    except (TypeError, ValueError):  # of C code
        return None
    try:
        signature.bind(*given, **named)
    except TypeError:
        return f"{getattr(function, '__name__', type(function).__name__)}{signature}"
    return None


def checked_estimate(estimate: object, sigma: float, who: str) -> Tensor:
    """An estimate that a function returned: a tensor of real numbers."""
    if not isinstance(estimate, Tensor):
        raise BadPrediction(
            f"sigma {sigma:.6g}: {who} returned {type(estimate).__name__}; expected a tensor like x, or a Prediction"
        )
    if not estimate.is_floating_point():
        raise BadPrediction(f"sigma {sigma:.6g}: {who} returned {estimate.dtype}; expected floating-point numbers")
    return estimate


def checked_estimates(estimates: object, sigma: float, count: int) -> Sequence[Tensor]:
    """What `predict` returned: a tensor for each conditioning."""
    said = type(estimates).__name__
    if isinstance(estimates, list | tuple):
        if len(estimates) == count:
            return [checked_estimate(one, sigma, "predict") for one in estimates]
        said = f"{len(estimates)} estimates"
    raise BadPrediction(
        f"sigma {sigma:.6g}: predict returned {said}; expected a list of {count}, one for each conditioning"
    )
