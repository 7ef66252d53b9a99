"""Settings of solvers and schedules, as the signatures of their functions declare them."""

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeGuard

from sigmagraph.engine.errors import BadValue


class Interval(NamedTuple):
    """Bounds of a numeric option, both included."""

    low: float
    high: float


class Choices(NamedTuple):
    """Allowed values of an option that picks a variant."""

    values: tuple[str, ...]


ANY_NUMBER = Interval(-sys.float_info.max, sys.float_info.max)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is an int or a float: True is not, nor is "3"."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a solver or schedule, as its signature declares it."""

    name: str
    default: object
    limits: Interval | Choices | None
    kind: type

    def check(self, place: str, value: object) -> object:
        """Return `value` if it is of the right kind and within limits; a whole number as an int where one is due."""
        if value is None and self.default is None:
            return None
        if self._is_allowed(value):
            return int(value) if self.kind is int and isinstance(value, float) else value
        raise BadValue(f"{place}.{self.name}", value, self.allowed)

    def _is_allowed(self, value: object) -> bool:
        if isinstance(self.limits, Choices):
            return isinstance(value, str) and value in self.limits.values
        if self.kind not in (int, float):
            return isinstance(value, self.kind)
        low, high = self.limits or ANY_NUMBER
        if not is_number(value) or not low <= value <= high:
            return False
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            return False  # within limits that have no end, and still nothing to calculate with
        return self.kind is float or float(value).is_integer()

    @property
    def allowed(self) -> str:
        """The limits in words."""
        if isinstance(self.limits, Choices):
            return "one of " + ", ".join(self.limits.values)
        if isinstance(self.limits, Interval):
            return f"{self.kind.__name__} from {self.limits.low:g} to {self.limits.high:g}"
        return self.kind.__name__


def positional_unlike(function: Callable[..., object], count: int) -> str | None:
    """None where `function` can be called with `count` values by position and nothing else; else what it takes."""
    if not callable(function):
        return type(function).__name__
    signature = inspect.signature(function)
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    places = [parameter for parameter in signature.parameters.values() if parameter.kind in kinds]
    required = sum(parameter.default is inspect.Parameter.empty for parameter in places)
    takes_any = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in signature.parameters.values())
    if required <= count and (count <= len(places) or takes_any):
        return None
    return f"({', '.join(signature.parameters)})"


def options_of(function: Callable[..., object]) -> tuple[Option, ...]:
    """The keyword-only parameters of a solver or schedule function, as options."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            hint, limits = hints.get(parameter.name, type(parameter.default)), None
            if parameter.default is inspect.Parameter.empty:
                place = f"option {parameter.name} of {getattr(function, '__qualname__', function)}"
                raise BadValue(place, str(parameter), "a default, as in `rho: float = 7.0`: runs may leave options out")
            if typing.get_origin(hint) is Annotated:
                hint, limits = typing.get_args(hint)[:2]
            bare = [one for one in typing.get_args(hint) if one is not type(None)] or [hint]
            found.append(Option(parameter.name, parameter.default, limits, bare[0]))
    return tuple(found)
