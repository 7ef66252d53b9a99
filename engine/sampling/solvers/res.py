"""RES, refined exponential solvers (Zhang 2023, arXiv:2308.02157): the multistep rule and its variants."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.cfg_pp import moved
from sigmagraph.engine.sampling.solvers.euler import Strength, add_noise, ancestral, denoise_and_renoise

SOURCE = "Zhang 2023, arXiv:2308.02157"
QUIRKS = "revision 1 adds noise as if alpha = 1; revision 2 follows the process and bounds the extrapolation"


def res_rule(x: Tensor, sigmas: Sequence[float], ctx: Context, eta: float, s_noise: float, is_cfg_pp: bool) -> Steps:
    """Second-order exponential multistep on denoised, down to `sigma_down`; then noise back up where eta > 0."""
    last: tuple[float, float, Tensor] | None = None  # level, sigma_down of the step after it, estimate
    for sigma, sigma_next in pairwise(sigmas):
        if is_cfg_pp:
            denoised, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        else:
            denoised = uncond = yield Evaluate(x, sigma)
        share = ancestral(sigma, sigma_next, eta, ctx)
        down, up = split(sigma, sigma_next, eta) if ctx.as_recorded else (share.sigma_down, share.sigma_up)
        if down == 0:
            x = denoised if ctx.as_recorded else denoise_and_renoise(denoised, share, sigma_next, s_noise, ctx)
        else:
            ratio = down / sigma
            moved_on = denoised + (x - uncond) * ratio
            if is_cfg_pp and not ctx.as_recorded:
                moved_on = moved(x, sigma, down, denoised, uncond, ctx)
            if last is not None:
                moved_on = _corrected(moved_on, x, sigma, down, denoised, uncond, last, is_cfg_pp, ctx)
            x = moved_on
            if sigma_next > 0 and eta > 0:
                if ctx.as_recorded:
                    x = x + ctx.draw() * (up * s_noise) if up * s_noise > 0 else x
                else:
                    x = add_noise(x, share, s_noise, ctx)
        last = sigma, down, uncond
        yield Step(x, denoised)
    return x


def _corrected(
    first_order: Tensor,
    x: Tensor,
    sigma: float,
    down: float,
    denoised: Tensor,
    uncond: Tensor,
    last: tuple[float, float, Tensor],
    is_cfg_pp: bool,
    ctx: Context,
) -> Tensor:
    """Replace the constant estimate by a line through it and the last one: h (b1 D + b2 D_last), with phi functions."""
    sigma_last, down_last, before = last
    h = math.log(sigma / down)
    # to where the last step went down to, not to where noise brought it back: what noise does to estimates is no slope
    reach = math.log(down_last / sigma_last) / h if down_last > 0 else -math.inf
    phi_1 = -math.expm1(-h) / h
    b2 = (1 - phi_1) / h / reach if reach != 0 else 0.0
    if not ctx.as_recorded:
        b2 = max(b2, -(1 - phi_1) / h * 2)
    b1 = phi_1 - b2 if reach != 0 else 0.0
    if not is_cfg_pp:
        return x * math.exp(-h) + (denoised * b1 + before * b2) * h
    if ctx.as_recorded:
        return (x + denoised - uncond) * math.exp(-h) + (uncond * b1 + before * b2) * h
    return first_order + (before - uncond) * (h * b2)


@solver("res_multistep", order=2, noise=Noise.NONE, inverts=True, source=SOURCE, revision=2, remark=QUIRKS)
def res_multistep(x: Tensor, sigmas: Sequence[float], ctx: Context, *, s_noise: Strength = 1.0) -> Steps:
    """RES multistep on the probability-flow ODE; `s_noise` is accepted and has nothing to scale."""
    return (yield from res_rule(x, sigmas, ctx, 0.0, s_noise, False))


@solver("res_multistep_cfg_pp", order=2, needs_uncond=True, source=SOURCE + " with CFG++", revision=2, remark=QUIRKS)
def res_multistep_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, *, s_noise: Strength = 1.0) -> Steps:
    """RES multistep along the unconditional direction."""
    return (yield from res_rule(x, sigmas, ctx, 0.0, s_noise, True))


@solver("res_multistep_ancestral", order=2, noise=Noise.SEQUENCE, source=SOURCE, revision=2, remark=QUIRKS)
def res_multistep_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """RES multistep down to `sigma_down`, then fresh noise."""
    return (yield from res_rule(x, sigmas, ctx, eta, s_noise, False))


@solver(
    "res_multistep_ancestral_cfg_pp",
    order=2,
    noise=Noise.SEQUENCE,
    needs_uncond=True,
    source=SOURCE + " with CFG++",
    revision=2,
    remark=QUIRKS,
)
def res_multistep_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """The ancestral rule along the unconditional direction."""
    return (yield from res_rule(x, sigmas, ctx, eta, s_noise, True))
