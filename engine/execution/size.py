"""How much memory a value holds, without knowing any tensor library: whatever says `nbytes` is believed."""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

MOST_OBJECTS = 100_000
SCALARS = frozenset((int, float, bool, str, bytes, type(None)))


def blocks(value: Any) -> dict[int, int]:
    """Identity -> bytes of every separate block of memory behind `value`; shared blocks appear once."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting and len(seen) < MOST_OBJECTS:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if type(each) in SCALARS:
            found[id(each)] = sys.getsizeof(each)
            continue
        size = getattr(each, "nbytes", None)
        if isinstance(size, int):
            found[id(each)] = size
            continue
        found[id(each)] = sys.getsizeof(each, 64)
        waiting.extend(_parts(each))
    return found


def size_of(value: Any) -> int:
    """Bytes behind `value`, each block once."""
    return sum(blocks(value).values())


def _parts(value: Any) -> Iterator[Any]:
    """What a value is made of: containers, records, and modules that list their parameters."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, each.name, None) for each in fields(value))
    elif callable(getattr(value, "parameters", None)) and callable(getattr(value, "buffers", None)):
        yield from value.parameters()
        yield from value.buffers()
