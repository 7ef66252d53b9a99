"""Copies of values for code that may edit them, and what differs afterwards. Tensors are met by their methods only."""

from collections import deque
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

NEVER_NAN = frozenset((int, bool, str, bytes, type(None)))


def copied(value: Any) -> Any:
    """Containers anew, tensors cloned, everything else as it is (models are immutable by contract)."""
    kind = type(value)
    if kind in NEVER_NAN or kind is float:
        return value
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    if kind is tuple:
        return tuple(copied(item) for item in value)
    if is_array(value):
        return value.clone() if hasattr(value, "clone") else value.copy()
    return _copied_relative(value)


def _copied_relative(value: Any) -> Any:
    """The less common containers, and classes made of the common ones."""
    if isinstance(value, dict | list | deque):
        made: Any = copy(value)
        for place, item in value.items() if isinstance(value, dict) else enumerate(value):
            made[place] = copied(item)
        return made
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(copied(item) for item in value)
    return copy(value) if isinstance(value, set | bytearray) else value


def is_array(value: Any) -> bool:
    """Whether it is a tensor or an array: it knows its bytes, its shape, and how to copy itself."""
    has_shape = hasattr(value, "shape") and hasattr(value, "dtype") and _has_nbytes(value)
    return has_shape and (hasattr(value, "clone") or hasattr(value, "copy"))


def _has_nbytes(value: Any) -> bool:
    try:
        return hasattr(value, "nbytes")
    except RuntimeError:  # a sparse tensor has it, and will not say
        return True


def difference(one: Any, other: Any) -> str | None:
    """Where two values of the same origin differ, or None. Opaque objects count as equal."""
    if type(one) is not type(other):
        return "its type"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"its keys {sorted(map(str, one.keys() ^ other.keys()))}"
        return next((f"[{key!r}] {found}" for key in one if (found := difference(one[key], other[key]))), None)
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return "its length"
        pairs = enumerate(zip(one, other, strict=True))
        return next((f"[{at}] {found}" for at, (a, b) in pairs if (found := difference(a, b))), None)
    if is_array(one):
        return _array_difference(one, other)
    if isinstance(one, str | int | float | bool | bytes):
        return None if one == other or one != one else "its value"
    return None


def _array_difference(one: Any, other: Any) -> str | None:
    if tuple(one.shape) != tuple(other.shape) or one.dtype != other.dtype:
        return "its shape or type"
    is_same = (one == other) | ((one != one) & (other != other))
    return None if bool(is_same.all()) else "its elements"


def has_nan(value: Any) -> bool:
    """Whether a NaN is in a number or array somewhere in the value; opaque objects have none."""
    waiting = [value]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind in NEVER_NAN or id(item) in seen:
            continue
        if isinstance(item, float):
            if item != item:
                return True
            continue
        seen.add(id(item))
        if kind is list or kind is tuple or isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
        elif is_dataclass(item) and not isinstance(item, type):
            waiting += (getattr(item, part.name) for part in fields(item))
        elif is_array(item) and bool((item != item).any()):
            return True
    return False
