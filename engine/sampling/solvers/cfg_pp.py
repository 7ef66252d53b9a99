"""CFG++ (Chung 2024, arXiv:2406.08070): the guided estimate is the clean part, the other sets the direction.

Meant for guidance scales near 1. Where both estimates agree, each rule is its plain twin (revision 2: exactly so).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.dpmpp import FURTHEST
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, add_noise, ancestral, denoise_and_renoise
from sigmagraph.engine.sampling.solvers.recorded import cfg_pp as recorded

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
    older={1: {"function": recorded.euler_ancestral_cfg_pp}},
)
def euler_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """The CFG++ step down to `sigma_down`, then fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        if sigma_next == 0:
            x = guided
        else:
            step = ancestral(sigma, sigma_next, eta, ctx)
            x = add_noise(moved(x, sigma, step.sigma_down, guided, uncond, ctx), step, s_noise, ctx)
        yield Step(x, guided)
    return x


@solver(
    "dpmpp_2m_cfg_pp",
    order=2,
    needs_uncond=True,
    source=SOURCE + ", on Lu 2022 Alg. 2",
    revision=2,
    remark="revision 1 extrapolates guided minus last unconditional, revision 2 the unconditional estimate alone",
    older={1: {"function": recorded.dpmpp_2m_cfg_pp}},
)
def dpmpp_2m_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """DPM-Solver++(2M) along the unconditional direction, with the guided estimate as the clean part."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        state = moved(x, sigma, sigma_next, guided, uncond, ctx)
        if last is not None and sigma_next > 0:
            stretch = math.log(sigma / sigma_next) / (2 * math.log(last[0] / sigma))  # half this step over the last one
            state = state + (uncond - last[1]) * ((1 - sigma_next / sigma) * min(stretch, FURTHEST))
        x, last = state, (sigma, uncond)
        yield Step(x, guided)
    return x


@solver(
    "dpmpp_2s_ancestral_cfg_pp",
    order=2,
    evaluations=2,
    noise=Noise.SEQUENCE,
    needs_uncond=True,
    source=SOURCE + ", on Lu 2022 2S",
    revision=2,
    remark="revision 1 mixes the first guided with the second unconditional estimate and adds noise as if alpha = 1",
    older={1: {"function": recorded.dpmpp_2s_ancestral_cfg_pp, "order": 0}},
)
def dpmpp_2s_ancestral_cfg_pp(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """A CFG++ step to the middle, another from the start with the middle's estimates, then fresh noise."""
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        step = ancestral(sigma, sigma_next, eta, ctx)
        down = step.sigma_down
        if down == 0:
            x = denoise_and_renoise(guided, step, sigma_next, s_noise, ctx)
        else:
            middle = math.sqrt(sigma * down)
            state = moved(x, sigma, middle, guided, uncond, ctx)
            guided_middle, uncond_middle = yield Evaluate(state, middle, needs_uncond=True)
            x = moved(x, sigma, down, guided_middle, uncond_middle, ctx)
            x = add_noise(x, step, s_noise, ctx) if sigma_next > 0 else x
        yield Step(x, guided)
    return x
