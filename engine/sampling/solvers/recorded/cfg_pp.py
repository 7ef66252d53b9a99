"""CFG++ as recorded: noise is added as if alpha = 1, and guided estimates stand where unconditional ones belong."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength


def euler_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """Renoises fully where no signal is left, whatever eta."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        if sigma_next == 0:
            x = guided
        else:
            alpha, alpha_next = ctx.process.alpha(sigma), ctx.process.alpha(sigma_next)
            relative = sigma_next / alpha_next
            if alpha > 0:
                down, up = split(sigma / alpha, relative, eta)
            else:
                down, up = (0.0, relative) if eta > 0 else (relative, 0.0)
            x = (guided + (x - uncond * alpha) * (down / sigma)) * alpha_next
            if eta * s_noise > 0:
                x = x + ctx.draw() * (alpha_next * up * s_noise)
        yield Step(x, guided)
    return x


def dpmpp_2m_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """Extrapolates guided minus last unconditional, however far."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        ratio = sigma_next / sigma
        state = guided + (x - uncond) * ratio
        if last is not None and sigma_next > 0:
            stretch = math.log(sigma / sigma_next) / (2 * math.log(last[0] / sigma))
            state = state + (guided - last[1]) * ((1 - ratio) * stretch)
        x, last = state, (sigma, uncond)
        yield Step(x, guided)
    return x


def dpmpp_2s_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """Mixes the first guided with the second unconditional estimate."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        down, up = split(sigma, sigma_next, eta)
        if down == 0:
            x = guided
        else:
            middle = math.sqrt(sigma * down)
            state = guided + (x - uncond) * (middle / sigma)
            guided_middle, uncond_middle = yield Evaluate(state, middle, needs_uncond=True)
            x = (x + guided - uncond_middle) * (down / sigma) + guided_middle * (1 - down / sigma)
            x = x + ctx.draw() * (up * s_noise) if up * s_noise > 0 else x
        yield Step(x, guided)
    return x
