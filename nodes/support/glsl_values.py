"""Values of a fragment shader: their types, conversions and operators, each over the whole picture at once.

Numbers are float32, whole numbers 32 bits wide.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue

__all__ = [
    "COMPARED", "DTYPES", "WORD", "GlslValue", "Mask",
    "binary", "chosen", "constructed", "converted", "is_type", "kind_of", "unary",
]  # fmt: skip

DTYPES = {"float": torch.float32, "int": torch.int64, "uint": torch.int64, "bool": torch.bool}
PREFIXES = {"": "float", "i": "int", "u": "uint", "b": "bool"}
WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class GlslValue:
    """A value of every pixel, [..., components], or of all alike, [components]; a texture is [height, width, 4]."""

    base: str
    data: Tensor

    @property
    def size(self) -> int:
        """How many components."""
        return int(self.data.shape[-1])


Mask = Tensor | None
"""Where a statement acts, [height, width, 1]; None for everywhere."""


def is_type(name: str) -> bool:
    """Whether a call by this name makes a value of a type."""
    return name in DTYPES or (name[-4:-1] == "vec" and name[-1] in "234" and name[:-4] in PREFIXES)


def kind_of(name: str) -> tuple[str, int]:
    """Base and number of components of a type."""
    return (PREFIXES[name[:-4]], int(name[-1])) if "vec" in name else (name, 1)


def _cast(base: str, data: Tensor, source: str) -> Tensor:
    if base == "bool":
        return data != 0
    if base == "float":
        return data.to(torch.float32)
    whole = data.to(torch.int64) if source != "float" else data.nan_to_num().clamp(-(2.0**31), 2.0**32).to(torch.int64)
    return _wrapped(base, whole)


def _wrapped(base: str, data: Tensor) -> Tensor:
    """Whole numbers in 32 bits."""
    if base == "uint":
        return data & WORD
    return ((data + 2**31) & WORD) - 2**31 if base == "int" else data


def converted(value: GlslValue, base: str, size: int) -> GlslValue:
    """A value for a place of its own type; another number of components is refused."""
    if value.size not in (1, size):
        raise BadValue("fragment_shader", f"a value of {value.size} components", f"{size}")
    data = value.data if value.base == base else _cast(base, value.data, value.base)
    return GlslValue(base, data.expand(*data.shape[:-1], size))


def constructed(name: str, values: Sequence[GlslValue]) -> GlslValue:
    """A value of a type from the components of others; one alone fills it."""
    base, size = kind_of(name)
    shape = torch.broadcast_shapes(*(value.data.shape[:-1] for value in values))
    parts = [part.expand(shape) for value in values for part in _cast(base, value.data, value.base).unbind(-1)]
    if len(parts) == 1:
        parts = parts * size
    if len(parts) < size:
        raise TypeError(f"{name} needs {size} components")
    return GlslValue(base, torch.stack(parts[:size], -1))


def chosen(mask: Mask, one: GlslValue, other: GlslValue) -> GlslValue:
    """One value inside the mask, the other outside."""
    return one if mask is None else GlslValue(one.base, torch.where(mask, one.data, other.data.to(one.data.dtype)))


def unary(mark: str, value: GlslValue) -> GlslValue:
    """`-`, `+`, `!` or `~` of a value."""
    if mark == "!":
        return GlslValue("bool", ~value.data)
    if mark == "~":
        return GlslValue(value.base, _wrapped(value.base, ~value.data))
    return GlslValue(value.base, _wrapped(value.base, -value.data)) if mark == "-" else value


COMPARED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "<": torch.lt, ">": torch.gt, "<=": torch.le, ">=": torch.ge,
}  # fmt: skip
LOGICAL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "&&": torch.logical_and, "||": torch.logical_or, "^^": torch.logical_xor,
}  # fmt: skip
WHOLE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "&": torch.bitwise_and, "|": torch.bitwise_or, "^": torch.bitwise_xor,
    "<<": lambda a, b: a << (b & 31), ">>": lambda a, b: a >> (b & 31),
}  # fmt: skip


def binary(mark: str, one: GlslValue, other: GlslValue, line: int) -> GlslValue:
    """What an operator makes of two values; types that do not go together are refused with their line."""
    if mark in LOGICAL:
        return GlslValue("bool", LOGICAL[mark](one.data, other.data))
    if one.base != other.base and mark not in ("<<", ">>"):
        raise BadValue(f"fragment_shader, line {line}", f"{one.base} {mark} {other.base}", "values of one type")
    if 1 not in (one.size, other.size) and one.size != other.size:
        raise BadValue(f"fragment_shader, line {line}", f"{one.size} {mark} {other.size} components", "as many of each")
    a, b = one.data, other.data
    if mark in ("==", "!="):
        same = (a == b).all(-1, keepdim=True)
        return GlslValue("bool", same if mark == "==" else ~same)
    if mark in COMPARED:
        return GlslValue("bool", COMPARED[mark](a, b))
    if mark in WHOLE:
        return GlslValue(one.base, _wrapped(one.base, WHOLE[mark](a, b)))
    return GlslValue(one.base, _wrapped(one.base, _arithmetic(mark, a, b, is_whole=one.base != "float")))


def _arithmetic(mark: str, a: Tensor, b: Tensor, *, is_whole: bool) -> Tensor:
    if mark == "+":
        return a + b
    if mark == "-":
        return a - b
    if mark == "*":
        return a * b
    if not is_whole:
        return a / b if mark == "/" else torch.fmod(a, b)
    safe = torch.where(b == 0, torch.ones_like(b), b)  # by nothing is undefined in GLSL
    return torch.div(a, safe, rounding_mode="trunc") if mark == "/" else torch.fmod(a, safe)
