"""When an output may feed an input. Plain `*` on either side fits all; a type that overrides `!=` decides itself."""

from typing import Any

from sigmagraph.engine.graph.node import Input, Output

ANY = "*"


def fits(output: Output, target: Input) -> bool:
    """Whether a link from `output` to `target` is allowed.

    Combos: equal option lists fit, and a plain COMBO or STRING fits any combo (the value is checked when it arrives).
    """
    if output.choices is not None:
        return _lists_fit(list(output.choices), target)
    received, declared = output.type, target.type
    if received == ANY or declared == ANY or not _differ(received, declared):
        return True
    if declared == "COMBO":
        return received in ("COMBO", "STRING")
    return bool(members(received) & members(declared))


def members(wire: str) -> set[str]:
    """The types of a comma list."""
    return {part.strip() for part in str(wire).split(",")}


def _lists_fit(received: list[Any], target: Input) -> bool:
    declared = target.allowed(None) if target.choices is not None else None
    if declared is not None:
        return received == declared
    return target.type == ANY or not _differ(received, target.type)


def _differ(received: Any, declared: Any) -> bool:
    """`!=` with the real objects: packs make wildcards out of it."""
    return bool(received != declared)
