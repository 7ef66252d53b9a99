"""What nodes of packs compute depends on this process's choices as ours does: they may load models by themselves."""

import inspect
from collections.abc import Awaitable
from dataclasses import replace
from functools import wraps
from typing import Any

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.models.memory.residency import RESIDENCY

__all__ = ["keyed_by_choices"]


def keyed_by_choices(node: Node) -> Node:
    """The node, its results kept apart for every precision, device and way of computing that changes numbers."""
    again = node.refresh
    return replace(
        node,
        fingerprint=_with_numbers(node.fingerprint),
        refresh=None if again is None else lambda: keyed_by_choices(again()),
    )


def _with_numbers(own: Any) -> Any:
    """A hook that answers what the node's own does, and the numbers beside it; its parameters are those of the own."""
    if own is None:
        return lambda: RESIDENCY.numbers

    @wraps(own)
    def answer(*given: Any, **named: Any) -> Any:
        told = own(*given, **named)
        return _awaited(told) if inspect.isawaitable(told) else [told, RESIDENCY.numbers]

    return answer


async def _awaited(told: Awaitable[Any]) -> list[Any]:
    return [await told, RESIDENCY.numbers]
