"""Gradient estimation as recorded: the whole of the slope's change is added at gamma 2."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength


def rule(x: Tensor, sigmas: Sequence[float], gamma: float, is_cfg_pp: bool) -> Steps:
    """The step both names share; with CFG++ the slope is the unconditional one."""
    last: Tensor | None = None
    for sigma, sigma_next in pairwise(sigmas):
        if is_cfg_pp:
            denoised, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        else:
            denoised = uncond = yield Evaluate(x, sigma)
        slope = (x - uncond) / sigma
        x = denoised + slope * sigma_next if sigma_next > 0 else denoised
        if last is not None and sigma_next > 0:
            x = x + (slope - last) * ((gamma - 1) * (sigma_next - sigma))
        last = slope
        yield Step(x, denoised)
    return x


def gradient_estimation(x: Tensor, sigmas: Sequence[float], ctx: Context, *, ge_gamma: Strength = 2.0) -> Steps:
    """Euler plus (gamma - 1) times the slope's change."""
    return (yield from rule(x, sigmas, ge_gamma, False))


def gradient_estimation_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, *, ge_gamma: Strength = 2.0) -> Steps:
    """The same along the unconditional direction."""
    return (yield from rule(x, sigmas, ge_gamma, True))
