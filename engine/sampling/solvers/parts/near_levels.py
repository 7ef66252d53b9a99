"""Levels so near each other that what lies between them is noise: rules through past values leave some of them out."""

import math
from collections.abc import Callable, Sequence

from sigmagraph.engine.sampling.solver import Context

NEAREST = 1e-6  # of a level: fresh noise of such a step moves the estimate a thousand times as far as the step is long
ROUNDING = 1e5  # times the values' own errors, in a step of a rule without noise; no schedule asks a rule for more
FRESH = 50.0  # the same, where fresh noise lies between the values
CURVED = 100.0  # times the distance of two past estimates: so far ahead they say nothing of the curvature


def apart(sigmas: Sequence[float], ctx: Context) -> tuple[Sequence[float], Context]:
    """The levels without those within a millionth of the one before them; the last one stays."""
    kept = [*sigmas[:1]]
    for sigma in sigmas[1:-1]:
        if abs(sigma - kept[-1]) > NEAREST * kept[-1]:
            kept.append(sigma)
    return [*kept, *sigmas[1:][-1:]], ctx


def steady(
    weights: Callable[[Sequence[float]], list[float]], nodes: Sequence[float], whole: float, limit: float = ROUNDING
) -> list[float]:
    """One weight per node, newest first; 0 for a node that lies too near those before it.

    `whole` is what a constant gets. The sizes of the weights over it say how many times the values' own errors the
    step takes up: ten times as many for a node ten times as near. Beyond `limit` nodes are left out; the newest stays.
    """
    found = _given(weights, nodes)
    if _size(found) <= limit * abs(whole):
        return found
    kept = [0]
    for place in range(1, len(nodes)):
        if _size(_given(weights, [nodes[one] for one in (*kept, place)])) <= limit * abs(whole):
            kept.append(place)
    known = dict(zip(kept, weights([nodes[one] for one in kept]), strict=True))
    return [known.get(place, 0.0) for place in range(len(nodes))]


def _given(weights: Callable[[Sequence[float]], list[float]], nodes: Sequence[float]) -> list[float]:
    """The weights; no number where two nodes are one."""
    return weights(nodes) if len(set(nodes)) == len(nodes) else [math.inf]


def _size(weights: Sequence[float]) -> float:
    total = sum(abs(weight) for weight in weights)
    return total if math.isfinite(total) else math.inf
