"""The two halves of an ancestral step: down to `sigma_down`, then fresh noise back up to the next level."""

from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.process import Ancestral
from sigmagraph.engine.sampling.solver import Context

Strength: TypeAlias = Annotated[float, Interval(0.0, 100.0)]


def ancestral(sigma: float, sigma_next: float, eta: float, ctx: Context) -> Ancestral:
    """The step's split; an `eta` beyond the one that renews all noise (a flow's `sigma_down` below 0) renews it all."""
    step = ctx.process.ancestral(sigma, sigma_next, eta)
    return step if step.sigma_down >= 0 else Ancestral(0.0, ctx.process.alpha(sigma_next), sigma_next)


def add_noise(x: Tensor, step: Ancestral, s_noise: float, ctx: Context) -> Tensor:
    """The second half: from `sigma_down` back up to the next level with fresh noise."""
    x = x * step.rescale if step.rescale != 1 else x
    return x.add(ctx.draw(), alpha=step.sigma_up * s_noise) if step.sigma_up * s_noise != 0 else x


def denoise_and_renoise(denoised: Tensor, step: Ancestral, sigma_next: float, s_noise: float, ctx: Context) -> Tensor:
    """A step all the way down: the estimate, with all of the next level's noise."""
    return denoised if sigma_next == 0 else add_noise(denoised, step, s_noise, ctx)
