"""iPNDM as recorded: weights of equal steps whatever the spacing, and others that are right for two slopes only."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Steps
from sigmagraph.engine.sampling.solvers.parts.multistep import multistep

MaxOrder: TypeAlias = Annotated[int, Interval(1, 4)]
EQUAL_STEPS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def ipndm(x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: MaxOrder = 4) -> Steps:
    """Weighted as if steps were equal."""
    return (yield from multistep(x, sigmas, max_order, equal_steps))


def equal_steps(levels: Sequence[float], sigma_next: float) -> list[float]:
    """The classical coefficients of equal steps, whatever the spacing."""
    return [(sigma_next - levels[0]) * share for share in EQUAL_STEPS[len(levels)]]


def ipndm_v(x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: MaxOrder = 4) -> Steps:
    """Wrong weights for orders 3 and 4."""
    return (yield from multistep(x, sigmas, max_order, unequal_steps))


def unequal_steps(levels: Sequence[float], sigma_next: float) -> list[float]:
    """Right for two slopes, not for three or four (they miss sum 1)."""
    h, *past = [a - b for a, b in pairwise([sigma_next, *levels])]
    if not past:
        return [h]
    h1 = past[0]
    half = h / (2 * h1)
    shares = [1 + half, -half]
    if len(past) > 1:
        h2 = past[1]
        p = 0.5 * (1 - h / (3 * (h + h1)) * (h * (h + h1) / (h1 * (h1 + h2))))
        shares = [shares[0] + p, shares[1] - (1 + h1 / h2) * p, p * h1 / h2]
    if len(past) > 2:
        h2, h3 = past[1:]
        q = 0.5 * (1 - h / (3 * (h + h1))) + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
        q *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
        r = h1 * (h1 + h2) / (h2 * (h2 + h3))
        more = [q, -(1 + h1 / h2 + r) * q, (h1 / h2 + r * (1 + h2 / h3)) * q, -q * r * h1 / h2]
        shares = [a + b for a, b in zip([*shares, 0.0], more, strict=True)]
    return [h * share for share in shares]
