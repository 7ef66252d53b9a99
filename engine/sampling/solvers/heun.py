"""Heun's rule on the probability-flow ODE, with optional churn."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from engine.sampling.solvers.euler import Churn, Level, churned


@solver("heun", order=2, evaluations=2, source="Karras 2022, arXiv:2206.00364, Alg. 2")
def heun(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_churn: Churn = 0.0,
    s_tmin: Level = 0.0,
    s_tmax: Level = math.inf,
    s_noise: Churn = 1.0,
) -> Steps:
    """Trapezoidal correction of an Euler step; the step onto sigma 0 is plain Euler."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        slope, width = (x - denoised) / sigma, sigma_next - sigma
        ahead = x + slope * width
        if sigma_next > 0:
            corrected: Tensor = yield Evaluate(ahead, sigma_next)
            ahead = x + (slope + (ahead - corrected) / sigma_next) * (width / 2)
        x = ahead
        yield Step(x, denoised)
    return x
