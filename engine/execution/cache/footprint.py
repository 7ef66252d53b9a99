"""How much memory a value holds, without knowing any tensor library: whatever says `nbytes` is believed."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

MOST_OBJECTS = 100_000
SCALARS = frozenset((int, float, bool, str, bytes, type(None)))


@dataclass(slots=True)
class Footprint:
    """`blocks`: identity -> bytes of each array, which other values may share; `own_bytes`: everything around them."""

    blocks: dict[int, int]
    own_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.own_bytes + sum(self.blocks.values())


def footprint(value: Any) -> Footprint:
    """What is behind a value, each array once."""
    blocks: dict[int, int] = {}
    own = 0
    seen: set[int] = set()
    waiting = [value]
    while waiting and len(seen) < MOST_OBJECTS:
        part = waiting.pop()
        kind = type(part)
        if kind in SCALARS:
            own += sys.getsizeof(part)
        elif id(part) not in seen:
            seen.add(id(part))
            if kind is list or kind is tuple:
                own += sys.getsizeof(part)
                waiting += part
            elif isinstance(size := getattr(part, "nbytes", None), int):
                blocks[id(part)] = size
            else:
                own += sys.getsizeof(part, 64)
                waiting += _parts(part)
    return Footprint(blocks, own)


def size_of(value: Any) -> int:
    """Bytes behind `value`, each array once."""
    return footprint(value).total_bytes


def _parts(value: Any) -> Iterator[Any]:
    """What a value is made of: containers, records, and modules that list their parameters."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, field.name, None) for field in fields(value))
    elif callable(getattr(value, "parameters", None)) and callable(getattr(value, "buffers", None)):
        yield from value.parameters()
        yield from value.buffers()
