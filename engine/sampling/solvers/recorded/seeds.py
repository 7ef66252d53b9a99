"""SEEDS-2 as recorded: the level of its middle is rounded on the way, and what it rounds to decides its noise."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.log_snr import exp_decay
from sigmagraph.engine.sampling.solvers.parts.stages import StageNoise, big_phi_2, first_order
from sigmagraph.engine.sampling.solvers.recorded.rounding import rounded_middle


def seeds_2(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r: Annotated[float, Interval(1e-3, 1.0)] = 0.5,
    solver_type: Annotated[str, Choices(("phi_1", "phi_2"))] = "phi_1",
) -> Steps:
    """Two stages: at the fraction `r` of the step and at its end."""
    process = ctx.process
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            middle = rounded_middle(sigma, sigma_next, r, ctx)
            start, end = process.log_snr(sigma), process.log_snr(sigma_next)
            noise = StageNoise(eta, s_noise, ctx)
            state = noise.added(first_order(x, sigma, middle, denoised, eta, ctx), middle, r * (end - start))
            second: Tensor = yield Evaluate(state, middle)
            z = -(1 + eta) * (end - start)
            weight = math.expm1(z) / (2 * r) if solver_type == "phi_1" else big_phi_2(z) / r
            pull = denoised * (math.expm1(z) - weight) + second * weight
            x = x * (sigma_next / sigma * exp_decay(eta, end - start)) - pull * process.alpha(sigma_next)
            x = noise.added(x, sigma_next, (1 - r) * (end - start))
        yield Step(x, denoised)
    return x
