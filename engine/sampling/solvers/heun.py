"""Heun's rule on the probability-flow ODE, and Heun++."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.churn import Level, churned
from sigmagraph.engine.sampling.solvers.parts.heun_slopes import slopes_ahead
from sigmagraph.engine.sampling.solvers.parts.lagrange import integrals
from sigmagraph.engine.sampling.solvers.parts.near_levels import steady
from sigmagraph.engine.sampling.solvers.recorded import heun as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import alpha_1


@solver(
    "heun",
    order=2,
    evaluations=2,
    inverts=True,
    source="Karras 2022, arXiv:2206.00364, Alg. 2",
    revision=2,
    older={1: {"told": alpha_1}},
)
def heun(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_churn: Strength = 0.0,
    s_tmin: Level = 0.0,
    s_tmax: Level = math.inf,
    s_noise: Strength = 1.0,
) -> Steps:
    """Trapezoidal correction of an Euler step; the step onto sigma 0 is plain Euler.

    Also known as the EDM sampler, and as the explicit trapezoidal rule. Not `dpm_2`, which looks at the middle.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        slope, width = (x - denoised) / sigma, sigma_next - sigma
        ahead = x.add(slope, alpha=width)
        if sigma_next > 0:
            corrected: Tensor = yield Evaluate(ahead, sigma_next)
            ahead = x.add(slope + (ahead - corrected) / sigma_next, alpha=width / 2)
        x = ahead
        yield Step(x, denoised)
    return x


@solver(
    "heunpp2",
    order=2,
    evaluations=3,
    inverts=True,
    source="Heun++ (Carzit 2023)",
    revision=2,
    remark="weights fade to Euler's in revision 1 (order 1); revision 2 integrates the three slopes' parabola",
    older={1: {"function": recorded.heunpp2, "told": alpha_1, "order": 1, "inverts": False}},
)
def heunpp2(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_churn: Strength = 0.0,
    s_tmin: Level = 0.0,
    s_tmax: Level = math.inf,
    s_noise: Strength = 1.0,
) -> Steps:
    """Slopes here, at the next level and at the one after it, weighted; fewer in the last two steps."""
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        levels, slopes = yield from slopes_ahead(x, denoised, [sigma, *sigmas[place + 1 : place + 3]], sigmas[-1])
        weights = steady(partial(integrals, start=sigma, end=sigma_next), levels, sigma_next - sigma)
        for slope, weight in zip(slopes, weights, strict=True):
            x = x + slope * weight
        yield Step(x, denoised)
    return x
