"""Adams-Bashforth rules on the slope d = (x - denoised) / sigma: lms, iPNDM and its variable-step form.

All take the last slopes, weight them and step; they differ in the weights. The step onto sigma 0 is x = denoised.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Range
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.lagrange import integrals

# (levels of the slopes, newest first; the next level) -> one weight per slope, the step's width included
Weights: TypeAlias = Callable[[Sequence[float], float], list[float]]
EQUAL_STEPS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
EXACT = "revision 2 integrates the polynomial through the last slopes exactly"


def multistep(x: Tensor, sigmas: Sequence[float], order: int, weights: Weights) -> Steps:
    """The loop all of them share."""
    slopes: list[Tensor] = []
    levels: list[float] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        slopes, levels = [(x - denoised) / sigma, *slopes][:order], [sigma, *levels][:order]
        if sigma_next == 0:
            x = denoised
        else:
            for slope, weight in zip(slopes, weights(levels, sigma_next), strict=True):
                x = x.add(slope, alpha=weight)
        yield Step(x, denoised)
    return x


def exact(levels: Sequence[float], sigma_next: float) -> list[float]:
    """The integrals of the Lagrange polynomials through the slopes: right for any spacing."""
    return integrals(levels, levels[0], sigma_next)


def equal_steps(levels: Sequence[float], sigma_next: float) -> list[float]:
    """The classical coefficients of equal steps, whatever the spacing."""
    return [(sigma_next - levels[0]) * share for share in EQUAL_STEPS[len(levels)]]


def as_recorded_v(levels: Sequence[float], sigma_next: float) -> list[float]:
    """ipndm_v as existing images have it: right for two slopes, not for three or four (they miss sum 1)."""
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


@solver("lms", order=4, inverts=True, source="Adams-Bashforth in sigma; k-diffusion (Crowson 2022)", revision=2)
def lms(x: Tensor, sigmas: Sequence[float], ctx: Context, *, order: Annotated[int, Range(1, 100)] = 4) -> Steps:
    """Linear multistep in sigma with exact weights."""
    return (yield from multistep(x, sigmas, order, exact))


@solver(
    "ipndm",
    order=4,
    inverts=True,
    source="Liu 2022, arXiv:2202.09778; Zhang & Chen 2022, arXiv:2204.13902",
    revision=2,
    remark="revision 1 weights as if steps were equal; " + EXACT,
    older={1: {"order": 2}},
)
def ipndm(x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: Annotated[int, Range(1, 4)] = 4) -> Steps:
    """Improved pseudo numerical method: Adams-Bashforth, order raised step by step."""
    return (yield from multistep(x, sigmas, max_order, equal_steps if ctx.as_recorded else exact))


@solver(
    "ipndm_v",
    order=4,
    inverts=True,
    source="Zhang & Chen 2022, arXiv:2204.13902, variable steps",
    revision=2,
    remark="revision 1 has wrong weights for orders 3 and 4; " + EXACT,
    older={1: {"order": 1}},
)
def ipndm_v(x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: Annotated[int, Range(1, 4)] = 4) -> Steps:
    """The iPNDM rule for unequal steps."""
    return (yield from multistep(x, sigmas, max_order, as_recorded_v if ctx.as_recorded else exact))
