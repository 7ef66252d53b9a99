"""DPM-Solver (Lu 2022, arXiv:2206.00927): second-order single steps, plain and ancestral."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, add_noise, ancestral, denoise_and_renoise
from sigmagraph.engine.sampling.solvers.parts.churn import Level, churned
from sigmagraph.engine.sampling.solvers.recorded import ancestral as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import alpha_1

DROPPED = "revision 1 drops the last sigma above 0, which makes the final jump long; revision 2 keeps every sigma"


@solver(
    "dpm_2",
    order=2,
    evaluations=2,
    inverts=True,
    source="Lu 2022, arXiv:2206.00927, DPM-Solver-2; Karras 2022",
    revision=2,
    remark=DROPPED,
    older={1: {"drops_penultimate": True, "told": alpha_1}},
)
def dpm_2(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_churn: Strength = 0.0,
    s_tmin: Level = 0.0,
    s_tmax: Level = math.inf,
    s_noise: Strength = 1.0,
) -> Steps:
    """Midpoint rule, the middle taken in ln(sigma).

    Also known as DPM2 and KDPM2. Not DPM-Solver-2 of the paper, whose step differs, nor DPM-Solver++.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            middle = math.sqrt(sigma * sigma_next)
            state = denoised.lerp(x, middle / sigma)
            halfway: Tensor = yield Evaluate(state, middle)
            x = x.add(state - halfway, alpha=(sigma_next - sigma) / middle)
        yield Step(x, denoised)
    return x


@solver(
    "dpm_2_ancestral",
    order=2,
    evaluations=2,
    noise=Noise.SEQUENCE,
    source="k-diffusion (Crowson 2022); flow: RF split",
    revision=2,
    remark=DROPPED,
    older={1: {"drops_penultimate": True, "function": recorded.dpm_2_ancestral}},
)
def dpm_2_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """dpm_2 down to `sigma_down`, then fresh noise back up.

    Also known as "DPM2 a".
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = denoise_and_renoise(denoised, step, sigma_next, s_noise, ctx)
        else:
            middle = math.sqrt(sigma * down)
            state = denoised.lerp(x, middle / sigma)
            halfway: Tensor = yield Evaluate(state, middle)
            x = x.add(state - halfway, alpha=(down - sigma) / middle)
            x = add_noise(x, step, s_noise, ctx)
        yield Step(x, denoised)
    return x
