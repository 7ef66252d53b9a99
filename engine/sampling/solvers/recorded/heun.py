"""Heun++ as recorded."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.churn import Level, churned
from sigmagraph.engine.sampling.solvers.parts.heun_slopes import slopes_ahead


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
    """Weights fade with the level to Euler's; they have the first sigma in their denominators."""
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        if s_churn > 0 and not s_tmin <= sigma <= s_tmax:
            ctx.churn()  # drawn and thrown away, which moves what is drawn later
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        levels, slopes = yield from slopes_ahead(x, denoised, [sigma, *sigmas[place + 1 : place + 3]], sigmas[-1])
        rest = [level / (len(levels) * sigmas[0]) for level in levels[1:]]
        for slope, share in zip(slopes, (1 - sum(rest), *rest), strict=True):
            x = x + slope * ((sigma_next - sigma) * share)
        yield Step(x, denoised)
    return x
