"""DPM-Solver++ for the reverse SDE (Lu 2022, arXiv:2211.01095; k-diffusion), in half log-SNR, with Brownian noise.

h is the step in log-SNR and H = (1 + eta) h. Where no signal is left (log-SNR minus infinity) h is infinite and every
formula has its limit; revision 1 starts a hair lower instead.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Range
from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpmpp import FURTHEST, SOURCE
from sigmagraph.engine.sampling.solvers.euler import Strength
from sigmagraph.engine.sampling.solvers.log_snr import (
    exp_decay,
    fresh,
    from_no_signal,
    phi_2,
    phi_3,
    rounded_middle,
    started,
)

LIMIT = "revision 1 starts at percent 1e-4 where no signal is left; revision 2 takes the limit"
BOUND = "; revision 2 bounds the extrapolation where a step is more than twice the one before"
HALVED = "; revision 1 gives the curvature half its weight (order 2)"


@solver("dpmpp_sde", order=2, evaluations=2, noise=Noise.BROWNIAN, source=SOURCE, revision=2, remark=LIMIT)
def dpmpp_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r: Annotated[float, Range(1e-3, 100.0)] = 0.5,
) -> Steps:
    """Two ancestral steps from the same start: to the middle `r`, then all the way with the estimates blended."""
    for sigma, sigma_next in pairwise(started(sigmas, ctx)):
        denoised: Tensor = yield Evaluate(x, sigma)
        blend = 1 / (2 * r)
        if sigma_next == 0:
            x = denoised
        else:
            middle = rounded_middle(sigma, sigma_next, r, ctx)
            if math.isinf(ctx.process.log_snr(sigma)):
                middle, blend = from_no_signal(sigma_next, 1 + eta, ctx), 1.0
            state = _to(x, sigma, middle, denoised, eta, s_noise, ctx)
            halfway: Tensor = yield Evaluate(state, middle)
            x = _to(x, sigma, sigma_next, denoised + (halfway - denoised) * blend, eta, s_noise, ctx)
        yield Step(x, denoised)
    return x


def _to(x: Tensor, sigma: float, target: float, denoised: Tensor, eta: float, s_noise: float, ctx: Context) -> Tensor:
    """One first-order ancestral step in sigma / alpha, from `sigma` to `target`."""
    alpha, alpha_target = ctx.process.alpha(sigma), ctx.process.alpha(target)
    relative = sigma / alpha if alpha > 0 else math.inf
    down, up = split(relative, target / alpha_target, eta)
    kept = alpha_target * down / sigma  # alpha_target / alpha * down / relative, without its poles
    x = x * kept + denoised * (alpha_target - kept * alpha)
    return x + ctx.brownian(sigma, target) * (alpha_target * up * s_noise) if eta * s_noise > 0 else x


@solver("dpmpp_2m_sde", order=2, noise=Noise.BROWNIAN, source=SOURCE + ", SDE 2M", revision=2, remark=LIMIT + BOUND)
def dpmpp_2m_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    solver_type: Annotated[str, Choices(("midpoint", "heun"))] = "midpoint",
) -> Steps:
    """SDE-DPM-Solver++(2M): a line through the last two estimates, in half log-SNR."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(started(sigmas, ctx)):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = ctx.process.log_snr(sigma_next) - ctx.process.log_snr(sigma)
            alpha, decay = ctx.process.alpha(sigma_next), (1 + eta) * h
            x = x * (sigma_next / sigma * exp_decay(eta, h)) - denoised * (alpha * math.expm1(-decay))
            if last is not None:
                stretch = _stretch(h, last[0], ctx)
                weight = -0.5 * math.expm1(-decay) if solver_type == "midpoint" else phi_2(decay)
                x = x + (denoised - last[1]) * (alpha * weight * stretch)
            x = fresh(x, sigma, sigma_next, eta, s_noise, h, ctx)
            last = h, denoised
        yield Step(x, denoised)
    return x


def _stretch(h: float, h_last: float, ctx: Context) -> float:
    """The new step over the last one: how far a line through two estimates is followed, bounded in revision 2."""
    return h / h_last if ctx.as_recorded else min(h / h_last, 2 * FURTHEST)


@solver(
    "dpmpp_3m_sde",
    order=3,
    noise=Noise.BROWNIAN,
    source="k-diffusion (Crowson 2023)",
    revision=2,
    remark=LIMIT + BOUND + HALVED,
    older={1: {"order": 2}},
)
def dpmpp_3m_sde(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0
) -> Steps:
    """SDE-DPM-Solver++(3M): a parabola through the last three estimates, in half log-SNR."""
    past: list[tuple[float, Tensor]] = []
    for sigma, sigma_next in pairwise(started(sigmas, ctx)):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = ctx.process.log_snr(sigma_next) - ctx.process.log_snr(sigma)
            alpha, decay = ctx.process.alpha(sigma_next), (1 + eta) * h
            x = x * (sigma_next / sigma * exp_decay(eta, h)) - denoised * (alpha * math.expm1(-decay))
            if past and (ctx.as_recorded or h <= 2 * FURTHEST * past[0][0] * (1 + 1e-9)):
                x = x + _bend(denoised, past, h, decay, ctx) * alpha
            x = fresh(x, sigma, sigma_next, eta, s_noise, h, ctx)
            past = [(h, denoised), *past[:1]]
        yield Step(x, denoised)
    return x


def _bend(denoised: Tensor, past: list[tuple[float, Tensor]], h: float, decay: float, ctx: Context) -> Tensor:
    """What slope and curvature of the estimates, per step `h`, add to the integral.

    Revision 1 weights the curvature by phi_3 where the integral of its square is 2 phi_3, which costs an order.
    """
    (h1, first), *rest = past
    slope = (denoised - first) * (h / h1)
    if not rest or math.isinf(rest[0][0]):
        return slope * phi_2(decay)
    h2, second = rest[0]
    r0, r1 = h1 / h, h2 / h
    difference = slope - (first - second) / r1
    weight = phi_3(decay) * (1 if ctx.as_recorded else 2)
    return (slope + difference * (r0 / (r0 + r1))) * phi_2(decay) - difference * (weight / (r0 + r1))


alias("dpmpp_sde_gpu", "dpmpp_sde", on_device=True)
alias("dpmpp_2m_sde_gpu", "dpmpp_2m_sde", on_device=True)
alias("dpmpp_2m_sde_heun", "dpmpp_2m_sde", fixed={"solver_type": "heun"})
alias("dpmpp_2m_sde_heun_gpu", "dpmpp_2m_sde", fixed={"solver_type": "heun"}, on_device=True)
alias("dpmpp_3m_sde_gpu", "dpmpp_3m_sde", on_device=True)
