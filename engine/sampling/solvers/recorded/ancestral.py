"""Ancestral steps as recorded: where all of the noise would be renewed, some of them forget to renew it."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.process import Ancestral
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, add_noise, ancestral, denoise_and_renoise

NO_SIGNAL = 0.9999  # the level taken for half way from no signal at all


def euler_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """With an `eta` beyond full renewal it goes on past the estimate; exactly there it adds no noise."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ctx.process.ancestral(sigma, sigma_next, eta)
        x = denoised.lerp(x, step.sigma_down / sigma)
        x = add_noise(x, step, s_noise, ctx) if step.sigma_down != 0 else x
        yield Step(x, denoised)
    return x


def dpm_2_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """A step all the way down adds no noise where alpha = 1."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = all_the_way(denoised, step, sigma_next, s_noise, ctx)
        else:
            middle = math.sqrt(sigma * down)
            state = denoised.lerp(x, middle / sigma)
            halfway: Tensor = yield Evaluate(state, middle)
            x = x.add(state - halfway, alpha=(down - sigma) / middle)
            x = add_noise(x, step, s_noise, ctx)
        yield Step(x, denoised)
    return x


def dpmpp_2s_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """A step all the way down adds no noise where alpha = 1; from no signal half way is sigma 0.9999."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = all_the_way(denoised, step, sigma_next, s_noise, ctx)
        else:
            start, end = ctx.process.log_snr(sigma), ctx.process.log_snr(down)
            middle = NO_SIGNAL if math.isinf(start) else ctx.process.sigma((start + end) / 2)
            state = denoised.lerp(x, middle / sigma)
            halfway: Tensor = yield Evaluate(state, middle)
            x = halfway.lerp(x, down / sigma)
            x = add_noise(x, step, s_noise, ctx)
        yield Step(x, denoised)
    return x


def all_the_way(denoised: Tensor, step: Ancestral, sigma_next: float, s_noise: float, ctx: Context) -> Tensor:
    """The estimate; with the next level's noise only where the signal is scaled."""
    return denoised if step.rescale == 1 else denoise_and_renoise(denoised, step, sigma_next, s_noise, ctx)
