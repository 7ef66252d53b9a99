"""How large caches may be: `memory=4GiB,disk=20GiB` or `off`; limits come from the control group, not the machine."""

import re
from dataclasses import dataclass

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.host import limit_bytes

UNITS = {"": 1, "b": 1}
UNITS |= {f"{letter}{tail}": 1024 ** (at + 1) for at, letter in enumerate("kmgt") for tail in ("", "ib")}
UNITS |= {f"{letter}b": 1000 ** (at + 1) for at, letter in enumerate("kmgt")}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
ALLOWED = "'off', or memory=SIZE and disk=SIZE with a comma between, such as memory=4GiB,disk=20GiB"
SHARE = 0.25


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Budgets of the two tiers; a disk budget of 0 means no disk tier."""

    memory_bytes: int
    disk_bytes: int = 0

    @classmethod
    def parse(cls, text: str) -> "CacheSettings":
        """Read the option; a tier that is not named keeps its default (a quarter of the memory limit, no disk)."""
        if text.strip().lower() == "off":
            return cls(0, 0)
        sizes = {"memory": default_memory_bytes(), "disk": 0}
        for part in text.split(","):
            tier, equals, size = part.strip().partition("=")
            if tier not in sizes or not equals:
                raise BadValue("--cache", text, ALLOWED)
            sizes[tier] = parse_size(size, text)
        return cls(sizes["memory"], sizes["disk"])


def parse_size(size: str, whole: str = "") -> int:
    """`4GiB`, `500 MB`, `1024`: bytes. K, M, G, T alone count in steps of 1024."""
    match = SIZE.fullmatch(size.strip())
    if match is None or match.group(2).lower() not in UNITS:
        raise BadValue("--cache", whole or size, ALLOWED)
    return int(float(match.group(1)) * UNITS[match.group(2).lower()])


def default_memory_bytes() -> int:
    """A quarter of what there is: weights and activations want the rest."""
    return int(limit_bytes() * SHARE)
