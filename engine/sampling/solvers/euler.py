"""Euler's rule on the probability-flow ODE: plain with churn, and ancestral."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Range
from sigmagraph.engine.sampling.process import Ancestral
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver

Strength: TypeAlias = Annotated[float, Range(0.0, 100.0)]
Level: TypeAlias = Annotated[float, Range(0.0, math.inf)]


def churned(
    x: Tensor, sigma: float, steps: int, ctx: Context, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Tensor, float]:
    """Raise the noise level a little before a step (Karras 2022, Alg. 2, lines 4-6); draws only where it does."""
    if s_churn <= 0 or not s_tmin <= sigma <= s_tmax:
        return x, sigma
    raised = sigma * (1 + min(s_churn / steps, math.sqrt(2) - 1))
    if ctx.as_recorded or ctx.process.alpha(raised) == ctx.process.alpha(sigma):
        return x + ctx.churn() * (s_noise * math.sqrt(raised**2 - sigma**2)), raised
    raised = min(raised, (1 + sigma) / 2)  # where the signal fades as noise grows, it is scaled down with it
    fade = ctx.process.alpha(raised) / ctx.process.alpha(sigma) if sigma < 1 else 1.0
    return x * fade + ctx.churn() * (s_noise * math.sqrt(max(raised**2 - (fade * sigma) ** 2, 0.0))), raised


def add_noise(x: Tensor, share: Ancestral, s_noise: float, ctx: Context) -> Tensor:
    """The second half of an ancestral step: from `sigma_down` back up to the next level with fresh noise."""
    x = x * share.rescale if share.rescale != 1 else x
    return x.add(ctx.draw(), alpha=share.sigma_up * s_noise) if share.sigma_up * s_noise != 0 else x


def ancestral(sigma: float, sigma_next: float, eta: float, ctx: Context) -> Ancestral:
    """The step's split; an `eta` beyond the one that renews all noise (a flow's `sigma_down` below 0) renews it all."""
    share = ctx.process.ancestral(sigma, sigma_next, eta)
    return share if share.sigma_down >= 0 else Ancestral(0.0, ctx.process.alpha(sigma_next), sigma_next)


def denoise_and_renoise(denoised: Tensor, share: Ancestral, sigma_next: float, s_noise: float, ctx: Context) -> Tensor:
    """A step all the way down: the estimate, with all of the next level's noise.

    Revision 1 forgets that noise where alpha = 1, as existing images have it.
    """
    if sigma_next == 0 or (ctx.as_recorded and share.rescale == 1):
        return denoised
    return add_noise(denoised, share, s_noise, ctx)


@solver("euler", order=1, inverts=True, source="Karras 2022, arXiv:2206.00364, Alg. 2, first order", revision=2)
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

    With slope (x - denoised) / sigma the step is a straight line to the estimate, of which sigma' / sigma is left.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised.lerp(x, sigma_next / sigma)
        yield Step(x, denoised)
    return x


@solver(
    "euler_ancestral", order=1, noise=Noise.SEQUENCE, source="k-diffusion (Crowson 2022); flow: RF split", revision=2
)
def euler_ancestral(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """Euler down to `sigma_down`, then fresh noise back up to the next level."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if ctx.as_recorded:
            share = ctx.process.ancestral(sigma, sigma_next, eta)  # beyond full renewal it goes on past the estimate
        else:
            share = ancestral(sigma, sigma_next, eta, ctx)
        x = denoised.lerp(x, share.sigma_down / sigma)
        if sigma_next > 0 and (share.sigma_down != 0 or not ctx.as_recorded):
            x = add_noise(x, share, s_noise, ctx)
        yield Step(x, denoised)
    return x


alias(
    "ddim",
    "euler",
    source="Song 2020, arXiv:2010.02502, eta 0: the rule of euler; in masked runs of revision 1 its own noise",
    older={1: {"masks_with_next_seed": True}},
)
