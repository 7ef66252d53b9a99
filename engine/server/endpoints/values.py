"""A request body into values: defaults, aliases, ranges, lists, rounding and derived values; all faults at once."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.errors import EngineError, nearest
from sigmagraph.engine.redaction import NotShown, redacted
from sigmagraph.engine.server.endpoints.endpoint import Endpoint
from sigmagraph.engine.server.endpoints.manifest import Manifest, Parameter, Role, Scalar
from sigmagraph.engine.units import CREDIT

__all__ = ["Fault", "InvalidValues", "Values", "printable", "read_values", "shown"]

RANDOM_SEEDS = 1 << 32
MOST_COST, LARGEST_SIZE = 10**15, 10**9
LONGEST_VALUE, LONGEST_NUMBER = 200, 10**30
WORDS = {"string": "a string", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
LONGEST_LIST = 20
BLANK = "".join(chr(code) for code in (*range(9, 14), 32, 160, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029))
BLANK += "\u202f\u205f\u3000\ufeff"
"""What `\\s` matches in JavaScript: the OpenAPI document's pattern and the check here are to agree."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One field that cannot be used: where, what came, what is allowed, and the nearest allowed value."""

    code: str
    field: str
    message: str
    value: Any = None
    allowed: Any = None
    nearest: str | None = None

    def wire(self) -> dict[str, Any]:
        """The fault as clients get it; the pointer is RFC 6901."""
        pointer = "/" + self.field.replace("~", "~0").replace("/", "~1") if self.field else ""
        facts: dict[str, Any] = {"code": self.code, "pointer": pointer, "message": self.message}
        facts |= {"value": shown(self.field, self.value), "allowed": self.allowed, "nearest": self.nearest}
        return facts


class InvalidValues(EngineError, ValueError):
    """The body has faults; every one is listed."""

    code = "invalid_parameters"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in faults))


@dataclass(frozen=True)
class Values:
    """What one call asks for, complete: every parameter has its value. `given` are the fields the client sent."""

    manifest: Manifest
    all: Mapping[str, Scalar]
    given: frozenset[str]
    ignored: Sequence[str] = ()

    def role(self, role: Role) -> Scalar | None:
        """The value of the parameter that plays a role."""
        name = self.manifest.role(role)
        return self.all[name] if name is not None else None

    def whole(self, role: Role, otherwise: int) -> int:
        """The same as a whole number."""
        value = self.role(role)
        return int(value) if value is not None else otherwise

    def cost(self) -> int:
        """The price of the call in millionths of a credit, at most `MOST_COST`, which nobody has."""
        price = self.manifest.price
        sizes = [self.whole("width", 1024), self.whole("height", 1024), self.whole("batch", 1), self.whole("steps", 1)]
        if any(abs(size) > LARGEST_SIZE for size in sizes):  # the graph refuses it where it says so better
            return MOST_COST
        width, height, count, steps = sizes
        megapixels = width * height * count / 1e6
        cost = round((price.per_call + price.per_megapixel_step * megapixels * steps) * CREDIT)
        return min(max(0, cost), MOST_COST)

    def facts(self) -> dict[str, Scalar]:
        """The values worth reporting: everything but free text."""
        shown = self.manifest.parameters.items()
        return {
            name: self.all[name]
            for name, parameter in shown
            if parameter.type != "string" or parameter.enum or parameter.choices_of
        }


def read_values(
    endpoint: Endpoint, body: Any, allowed: Mapping[str, Sequence[Scalar]], found: Sequence[Fault] = ()
) -> Values:
    """The values of a body; raises `InvalidValues` with every fault, those `found` elsewhere before them."""
    if not isinstance(body, dict):
        raise InvalidValues([*found, Fault("wrong_type", "", "the body is not a JSON object", body, "object")])
    manifest = endpoint.manifest
    faults = list(found)
    fields, ignored = _named(manifest, body, faults)
    values: dict[str, Scalar] = {}
    for name, parameter in manifest.parameters.items():
        if name in fields:
            values[name] = _read(name, parameter, fields[name], allowed.get(name), faults)
        elif parameter.required or parameter.default is None:
            expected = allowed.get(name) or parameter.type
            faults.append(Fault("missing_field", name, f"{name} is required", None, expected))
        else:
            values[name] = parameter.default
    if faults:
        raise InvalidValues(faults)
    return Values(manifest, _finished(endpoint, values), frozenset(fields), ignored)


def _named(manifest: Manifest, body: Mapping[str, Any], faults: list[Fault]) -> tuple[dict[str, Any], list[str]]:
    """The fields under their own names, and the names nobody knows."""
    owners = {alias: name for name, parameter in manifest.parameters.items() for alias in parameter.names}
    fields: dict[str, Any] = {}
    ignored = []
    for key, value in body.items():
        name = owners.get(key, key)
        if name in manifest.parameters:
            if name in fields:
                faults.append(Fault("duplicate_field", key, f"{key} is {name}, which is there already", value))
            fields[name] = value
        elif manifest.unknown_fields == "ignore":
            ignored.append(key)
        else:
            match = nearest(key, manifest.parameters)
            hint = f"; did you mean {match!r}?" if match else ""
            message = f"{printable(key)!r} is not a field of this endpoint{hint}"
            faults.append(Fault("unknown_field", key, message, value, sorted(manifest.parameters), match))
    return fields, ignored


def _read(name: str, parameter: Parameter, value: Any, allowed: Sequence[Scalar] | None, faults: list[Fault]) -> Scalar:
    """One field, or a fault."""
    converted = _converted(parameter, value)
    if converted is None:
        message = f"{name}: {shown(name, value)!r} is not {WORDS[parameter.type]}"
        faults.append(Fault("wrong_type", name, message, value, parameter.type))
        return ""
    if isinstance(converted, str):
        converted = parameter.aliases.get(converted, converted)
    fault = _text_fault(name, parameter, converted) if isinstance(converted, str) else None
    if fault is None and allowed is not None and converted not in allowed:
        fault = _choice_fault(name, parameter, converted, allowed)
    if fault is None and parameter.type in ("integer", "number"):
        fault = _range_fault(name, parameter, converted)
    if fault is not None:
        faults.append(fault)
    return converted


def _converted(parameter: Parameter, value: Any) -> Scalar | None:
    """The value as the type asks, or None. 25.0 is a whole number (JavaScript has no other), 0 and 1 are truth."""
    if parameter.type == "string":
        return value if isinstance(value, str) else None
    if parameter.type == "boolean":
        return bool(value) if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        return None
    if parameter.type == "number":
        return float(value)
    return int(value) if int(value) == value else None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _text_fault(name: str, parameter: Parameter, text: str) -> Fault | None:
    low, high = parameter.min_length or 0, parameter.max_length
    if text != printable(text):
        return Fault("bad_text", name, f"{name}: is not valid Unicode (a lone surrogate)", printable(text), "Unicode")
    size = 0 if low and not text.strip(BLANK) else len(text)
    if size < low or (high is not None and size > high):
        wanted = {"min_length": low} | ({"max_length": high} if high is not None else {})
        reason = "must not be empty" if size == 0 else f"has {size} characters; expected {low} to {high}"
        return Fault("bad_length", name, f"{name}: {reason}", text, wanted)
    return None


def _choice_fault(name: str, parameter: Parameter, value: Scalar, allowed: Sequence[Scalar]) -> Fault:
    known = [choice for choice in (*allowed, *parameter.aliases) if isinstance(choice, str)]
    match = nearest(value, known) if isinstance(value, str) else None
    hint = f"; did you mean {match!r}?" if match else ""
    listed = ", ".join(str(choice) for choice in allowed) if len(allowed) <= LONGEST_LIST else f"{len(allowed)} values"
    message = f"{name}: {shown(name, value)!r} is not allowed; expected one of {listed}{hint}"
    return Fault("not_allowed", name, message, value, [*allowed], match)


def _range_fault(name: str, parameter: Parameter, value: Scalar) -> Fault | None:
    low, high = parameter.minimum, parameter.maximum
    assert not isinstance(value, str)  # converted to a number before
    if parameter.random is not None and value == parameter.random:
        return None
    if (low is None or value >= low) and (high is None or value <= high):
        return None
    span = {name: limit for name, limit in (("minimum", low), ("maximum", high)) if limit is not None}
    words = f"{low} to {high}" if low is not None and high is not None else f"{span}"
    if parameter.random is not None:
        span["random"], words = parameter.random, f"{words}, or {parameter.random} for a random one"
    return Fault("out_of_range", name, f"{name}: {shown(name, value)} is out of range; expected {words}", value, span)


def _finished(endpoint: Endpoint, values: dict[str, Scalar]) -> dict[str, Scalar]:
    """Derived values, a drawn seed, sizes on their grid (and scaled, for the demo)."""
    parameters = endpoint.manifest.parameters
    for name, parameter in parameters.items():
        values |= parameter.sets.get(str(values[name]), {})
    for name, parameter in parameters.items():
        value = values[name]
        if parameter.role == "seed" and parameter.random is not None and value == parameter.random:
            values[name] = secrets.randbelow(RANDOM_SEEDS)
        if parameter.round_to is not None and isinstance(value, int | float):
            scale = endpoint.pixel_scale if parameter.role in ("width", "height") else 1.0
            values[name] = rounded(value * scale, parameter.round_to)
    return values


def rounded(value: float, step: int) -> int:
    """The nearest multiple, halves up, and one step at least."""
    return max(step, math.floor(value / step + 0.5) * step)


def printable(text: str) -> str:
    """The text with lone surrogates replaced, which no encoding can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shown(name: str, value: Any) -> Any:
    """A value as an error about this field repeats it: no longer than a line, and no secret."""
    value = redacted(name, value)
    if isinstance(value, NotShown):
        return repr(value)
    if isinstance(value, str):
        text = printable(value)
        return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > LONGEST_NUMBER:
        return f"a number of {len(str(abs(value)))} digits"
    return value
