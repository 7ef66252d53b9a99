"""DPM-Solver++ SDE as recorded: the middle of a step is a rounded level."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.log_snr import brownian_step
from sigmagraph.engine.sampling.solvers.recorded.rounding import rounded_middle


def dpmpp_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r: Annotated[float, Interval(1e-3, 100.0)] = 0.5,
) -> Steps:
    """Two ancestral steps from the same start: to the middle `r`, then all the way with the estimates blended."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            middle = rounded_middle(sigma, sigma_next, r, ctx)
            state = brownian_step(x, sigma, middle, denoised, eta, s_noise, ctx)
            halfway: Tensor = yield Evaluate(state, middle)
            target = denoised + (halfway - denoised) * (1 / (2 * r))
            x = brownian_step(x, sigma, sigma_next, target, eta, s_noise, ctx)
        yield Step(x, denoised)
    return x
