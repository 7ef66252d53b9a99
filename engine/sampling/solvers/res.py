"""RES, refined exponential solvers (Zhang 2023, arXiv:2308.02157): the multistep rule and its variants.

Over a step h in lam = -ln(sigma), x' = e^-h x + integral of e^(u - h) D(u) du. D is the line through the last two
estimates, which lie c = (lam_last - lam) / h apart: weights b2 = (1 - phi_1) / (h c) and b1 = phi_1 - b2, times h.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.cfg_pp import moved
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, add_noise, ancestral, denoise_and_renoise
from sigmagraph.engine.sampling.solvers.recorded import res as recorded

SOURCE = "Zhang 2023, arXiv:2308.02157"
QUIRKS = "revision 1 adds noise as if alpha = 1; revision 2 follows the process and bounds the extrapolation"


class LastEstimate(NamedTuple):
    """The step before: from where, down to where, and the estimate it had."""

    sigma: float
    down: float
    estimate: Tensor


def weights(last: LastEstimate, sigma: float, down: float) -> tuple[float, float, float]:
    """The step h, and the weights b1 and b2 of the new and the last estimate."""
    h = math.log(sigma / down)
    # to where the last step went down to, not to where noise brought it back: what noise does to estimates is no slope
    reach = math.log(last.down / last.sigma) / h if last.down > 0 else -math.inf
    phi_1 = -math.expm1(-h) / h
    b2 = (1 - phi_1) / h / reach if reach != 0 else 0.0
    b2 = max(b2, -(1 - phi_1) / h * 2)  # at most as if steps had doubled
    return h, phi_1 - b2 if reach != 0 else 0.0, b2


def res_rule(x: Tensor, sigmas: Sequence[float], ctx: Context, eta: float, s_noise: float) -> Steps:
    """Down to `sigma_down`, then noise back up where eta > 0."""
    last: LastEstimate | None = None
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = denoise_and_renoise(denoised, step, sigma_next, s_noise, ctx)
        else:
            if last is None:
                x = denoised + (x - denoised) * (down / sigma)
            else:
                h, b1, b2 = weights(last, sigma, down)
                x = x * math.exp(-h) + (denoised * b1 + last.estimate * b2) * h
            x = add_noise(x, step, s_noise, ctx) if sigma_next > 0 and eta > 0 else x
        last = LastEstimate(sigma, down, denoised)
        yield Step(x, denoised)
    return x


def res_rule_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, eta: float, s_noise: float) -> Steps:
    """The CFG++ step, with what the line through the last two unconditional estimates adds."""
    last: LastEstimate | None = None
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = denoise_and_renoise(guided, step, sigma_next, s_noise, ctx)
        else:
            x = moved(x, sigma, down, guided, uncond, ctx)
            if last is not None:
                h, _, b2 = weights(last, sigma, down)
                x = x + (last.estimate - uncond) * (h * b2)
            x = add_noise(x, step, s_noise, ctx) if sigma_next > 0 and eta > 0 else x
        last = LastEstimate(sigma, down, uncond)
        yield Step(x, guided)
    return x


@solver(
    "res_multistep",
    order=2,
    noise=Noise.NONE,
    inverts=True,
    source=SOURCE,
    revision=2,
    remark=QUIRKS,
    older={1: {"function": recorded.res_multistep}},
)
def res_multistep(x: Tensor, sigmas: Sequence[float], ctx: Context, *, s_noise: Strength = 1.0) -> Steps:
    """RES multistep on the probability-flow ODE; `s_noise` is accepted and has nothing to scale."""
    return (yield from res_rule(x, sigmas, ctx, 0.0, s_noise))


@solver(
    "res_multistep_cfg_pp",
    order=2,
    needs_uncond=True,
    source=SOURCE + " with CFG++",
    revision=2,
    remark=QUIRKS,
    older={1: {"function": recorded.res_multistep_cfg_pp}},
)
def res_multistep_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, *, s_noise: Strength = 1.0) -> Steps:
    """RES multistep along the unconditional direction."""
    return (yield from res_rule_cfg_pp(x, sigmas, ctx, 0.0, s_noise))


@solver(
    "res_multistep_ancestral",
    order=2,
    noise=Noise.SEQUENCE,
    source=SOURCE,
    revision=2,
    remark=QUIRKS,
    older={1: {"function": recorded.res_multistep_ancestral}},
)
def res_multistep_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """RES multistep down to `sigma_down`, then fresh noise."""
    return (yield from res_rule(x, sigmas, ctx, eta, s_noise))


@solver(
    "res_multistep_ancestral_cfg_pp",
    order=2,
    noise=Noise.SEQUENCE,
    needs_uncond=True,
    source=SOURCE + " with CFG++",
    revision=2,
    remark=QUIRKS,
    older={1: {"function": recorded.res_multistep_ancestral_cfg_pp}},
)
def res_multistep_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """The ancestral rule along the unconditional direction."""
    return (yield from res_rule_cfg_pp(x, sigmas, ctx, eta, s_noise))
