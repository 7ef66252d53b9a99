"""CFG++ (Chung 2024, arXiv:2406.08070): the guided estimate is the clean part, the other sets the direction.

Meant for guidance scales near 1. Where both estimates agree, each rule is its plain twin (revision 2: exactly so).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices
from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.euler import Strength, add_noise, ancestral, denoise_and_renoise

SOURCE = "Chung 2024, arXiv:2406.08070"


def moved(x: Tensor, sigma: float, sigma_next: float, guided: Tensor, uncond: Tensor, ctx: Context) -> Tensor:
    """The CFG++ step from `sigma` to `sigma_next`: alpha' D + sigma' (x - alpha U) / sigma."""
    direction = (x - uncond * ctx.process.alpha(sigma)) / sigma
    return guided * ctx.process.alpha(sigma_next) + direction * sigma_next


@solver("euler_cfg_pp", order=1, needs_uncond=True, source=SOURCE, revision=2)
def euler_cfg_pp(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    version: Annotated[str, Choices(("regular", "alternative"))] = "regular",
) -> Steps:
    """The CFG++ step as it is; the alternative is Euler's step along (x - 2 D + U) / sigma, which ends at 2 D - U."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        if version == "alternative":
            x = x + (x - guided * 2 + uncond) * (sigma_next / sigma - 1)
        else:
            x = moved(x, sigma, sigma_next, guided, uncond, ctx) if sigma_next > 0 else guided
        yield Step(x, guided)
    return x


@solver(
    "euler_ancestral_cfg_pp",
    order=1,
    noise=Noise.SEQUENCE,
    needs_uncond=True,
    source=SOURCE + ", with ancestral noise",
    revision=2,
    remark="revision 1 renoises fully where no signal is left, whatever eta",
)
def euler_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """The CFG++ step down to `sigma_down`, then fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        if sigma_next == 0:
            x = guided
        elif not ctx.as_recorded:
            share = ancestral(sigma, sigma_next, eta, ctx)
            x = add_noise(moved(x, sigma, share.sigma_down, guided, uncond, ctx), share, s_noise, ctx)
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


@solver(
    "dpmpp_2m_cfg_pp",
    order=2,
    needs_uncond=True,
    source=SOURCE + ", on Lu 2022 Alg. 2",
    revision=2,
    remark="revision 1 extrapolates guided minus last unconditional, revision 2 the unconditional estimate alone",
)
def dpmpp_2m_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """DPM-Solver++(2M) along the unconditional direction, with the guided estimate as the clean part."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        ratio = sigma_next / sigma
        state = guided + (x - uncond) * ratio
        if not ctx.as_recorded:
            state = moved(x, sigma, sigma_next, guided, uncond, ctx)
        if last is not None and sigma_next > 0:
            newest = guided if ctx.as_recorded else uncond
            weight = extrapolation(last[0], sigma, sigma_next, ctx)
            state = state + (newest - last[1]) * ((1 - ratio) * weight)
        x, last = state, (sigma, uncond)
        yield Step(x, guided)
    return x


def extrapolation(sigma_last: float, sigma: float, sigma_next: float, ctx: Context) -> float:
    """Half the new step over the last one, in ln(sigma): how far a line through two estimates is followed.

    At most 1 (that is, a step twice the last one) in revision 2: beyond that a two-point line says nothing.
    """
    weight = math.log(sigma / sigma_next) / (2 * math.log(sigma_last / sigma))
    return weight if ctx.as_recorded else min(weight, 1.0)


@solver(
    "dpmpp_2s_ancestral_cfg_pp",
    order=2,
    evaluations=2,
    noise=Noise.SEQUENCE,
    needs_uncond=True,
    source=SOURCE + ", on Lu 2022 2S",
    revision=2,
    remark="revision 1 mixes the first guided with the second unconditional estimate and adds noise as if alpha = 1",
    older={1: {"order": 0}},
)
def dpmpp_2s_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """A CFG++ step to the middle, another from the start with the middle's estimates, then fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        share = ancestral(sigma, sigma_next, eta, ctx)
        down, up = split(sigma, sigma_next, eta) if ctx.as_recorded else (share.sigma_down, share.sigma_up)
        if down == 0:
            x = guided if ctx.as_recorded else denoise_and_renoise(guided, share, sigma_next, s_noise, ctx)
        else:
            middle = math.sqrt(sigma * down)
            state = guided + (x - uncond) * (middle / sigma)
            if not ctx.as_recorded:
                state = moved(x, sigma, middle, guided, uncond, ctx)
            guided_middle, uncond_middle = yield Evaluate(state, middle, needs_uncond=True)
            if ctx.as_recorded:
                x = (x + guided - uncond_middle) * (down / sigma) + guided_middle * (1 - down / sigma)
                x = x + ctx.draw() * (up * s_noise) if up * s_noise > 0 else x
            else:
                x = moved(x, sigma, down, guided_middle, uncond_middle, ctx)
                x = add_noise(x, share, s_noise, ctx) if sigma_next > 0 else x
        yield Step(x, guided)
    return x
