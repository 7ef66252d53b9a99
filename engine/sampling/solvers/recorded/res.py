"""RES multistep as recorded: noise is added as if alpha = 1, and the line through two estimates has no bound."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength


def rule(x: Tensor, sigmas: Sequence[float], ctx: Context, eta: float, s_noise: float, is_cfg_pp: bool) -> Steps:
    """Exponential multistep down to `sigma_down`; then noise back up where eta > 0."""
    last: tuple[float, float, Tensor] | None = None  # level, sigma_down of the step after it, estimate
    for sigma, sigma_next in pairwise(sigmas):
        if is_cfg_pp:
            denoised, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        else:
            denoised = uncond = yield Evaluate(x, sigma)
        down, up = split(sigma, sigma_next, eta)
        if down == 0:
            x = denoised
        else:
            if last is None:
                x = denoised + (x - uncond) * (down / sigma)
            else:
                h, b1, b2 = weights(last, sigma, down)
                x = x + denoised - uncond if is_cfg_pp else x
                x = x * math.exp(-h) + (uncond * b1 + last[2] * b2) * h
            x = x + ctx.draw() * (up * s_noise) if sigma_next > 0 and eta > 0 and up * s_noise > 0 else x
        last = sigma, down, uncond
        yield Step(x, denoised)
    return x


def weights(last: tuple[float, float, Tensor], sigma: float, down: float) -> tuple[float, float, float]:
    """The step h, and the weights of the new and the last estimate."""
    sigma_last, down_last, _ = last
    h = math.log(sigma / down)
    reach = math.log(down_last / sigma_last) / h if down_last > 0 else -math.inf
    phi_1 = -math.expm1(-h) / h
    b2 = (1 - phi_1) / h / reach if reach != 0 else 0.0
    return h, phi_1 - b2 if reach != 0 else 0.0, b2


def res_multistep(x: Tensor, sigmas: Sequence[float], ctx: Context, *, s_noise: Strength = 1.0) -> Steps:
    """On the probability-flow ODE."""
    return (yield from rule(x, sigmas, ctx, 0.0, s_noise, False))


def res_multistep_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, *, s_noise: Strength = 1.0) -> Steps:
    """Along the unconditional direction."""
    return (yield from rule(x, sigmas, ctx, 0.0, s_noise, True))


def res_multistep_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """With fresh noise."""
    return (yield from rule(x, sigmas, ctx, eta, s_noise, False))


def res_multistep_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """With fresh noise, along the unconditional direction."""
    return (yield from rule(x, sigmas, ctx, eta, s_noise, True))
