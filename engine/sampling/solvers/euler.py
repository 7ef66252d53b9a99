"""Euler's rule on the probability-flow ODE: plain with churn, and ancestral."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, add_noise, ancestral
from sigmagraph.engine.sampling.solvers.parts.churn import Level, churned
from sigmagraph.engine.sampling.solvers.recorded import ancestral as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import alpha_1


@solver(
    "euler",
    order=1,
    inverts=True,
    source="Karras 2022, arXiv:2206.00364, Alg. 2, first order",
    revision=2,
    older={1: {"told": alpha_1}},
)
def euler(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_churn: Strength = 0.0,
    s_tmin: Level = 0.0,
    s_tmax: Level = math.inf,
    s_noise: Strength = 1.0,
) -> Steps:
    """Explicit Euler on the probability-flow ODE; churn optional.

    Also known as DDIM without churn: in x / alpha against sigma / alpha the two are one rule. EulerDiscreteScheduler.

    With slope (x - denoised) / sigma the step is a straight line to the estimate, of which sigma' / sigma is left.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised.lerp(x, sigma_next / sigma)
        yield Step(x, denoised)
    return x


@solver(
    "euler_ancestral",
    order=1,
    noise=Noise.SEQUENCE,
    source="k-diffusion (Crowson 2022); flow: RF split",
    revision=2,
    older={1: {"function": recorded.euler_ancestral}},
)
def euler_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """Euler down to `sigma_down`, then fresh noise back up to the next level.

    Also known as "Euler a". Not Euler with churn, which adds noise before a step.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ancestral(sigma, sigma_next, eta, ctx)
        x = denoised.lerp(x, step.sigma_down / sigma)
        x = add_noise(x, step, s_noise, ctx) if sigma_next > 0 else x
        yield Step(x, denoised)
    return x


alias(
    "ddim",
    "euler",
    source="Song 2020, arXiv:2010.02502, eta 0: the rule of euler; in masked runs of revision 1 its own noise",
    older={1: {"masks_with_next_seed": True}},
)
