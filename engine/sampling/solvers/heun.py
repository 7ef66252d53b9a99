"""Heun's rule on the probability-flow ODE, and Heun++."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.euler import Level, Strength, churned
from sigmagraph.engine.sampling.solvers.lagrange import integrals


@solver("heun", order=2, evaluations=2, inverts=True, source="Karras 2022, arXiv:2206.00364, Alg. 2", revision=2)
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
    """Trapezoidal correction of an Euler step; the step onto sigma 0 is plain Euler."""
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
    older={1: {"order": 1, "inverts": False}},  # its weights have the first sigma in their denominators
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
    last = sigmas[-1]
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        if ctx.as_recorded and s_churn > 0 and not s_tmin <= sigma <= s_tmax:
            ctx.churn()  # drawn and thrown away, which moves what is drawn later
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        levels, slopes = [sigma], [(x - denoised) / sigma]
        state = x
        for level in () if sigma_next == last else sigmas[place + 1 : place + 3]:
            if level == last:
                break
            state = state + slopes[-1] * (level - levels[-1])
            further: Tensor = yield Evaluate(state, level)
            levels.append(level)
            slopes.append((state - further) / level)
        if ctx.as_recorded:
            rest = [level / (len(levels) * sigmas[0]) for level in levels[1:]]
            weights = [(sigma_next - sigma) * share for share in (1 - sum(rest), *rest)]
        else:
            weights = integrals(levels, sigma, sigma_next)
        for slope, weight in zip(slopes, weights, strict=True):
            x = x + slope * weight
        yield Step(x, denoised)
    return x
