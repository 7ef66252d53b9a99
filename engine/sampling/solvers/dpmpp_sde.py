"""DPM-Solver++ for the reverse SDE (Lu 2022, arXiv:2211.01095; k-diffusion), in half log-SNR, with Brownian noise.

h is the step in log-SNR and H = (1 + eta) h. Where no signal is left (log-SNR minus infinity) h is infinite and every
formula has its limit; revision 1 starts a hair lower instead.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpmpp import BOUNDED, FURTHEST, SOURCE, UNBOUNDED, Furthest
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.log_snr import (
    at_fraction,
    brownian_step,
    exp_decay,
    fresh,
    from_no_signal,
    phi_2,
    phi_3,
)
from sigmagraph.engine.sampling.solvers.parts.near_levels import CURVED
from sigmagraph.engine.sampling.solvers.recorded import dpmpp_sde as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import late_start

LIMIT = "revision 1 starts at percent 1e-4 where no signal is left; revision 2 takes the limit"
BOUND = "; revision 2 bounds the extrapolation where a step is more than twice the one before"
HALVED = "; revision 1 gives the curvature half its weight (order 2)"


@solver(
    "dpmpp_sde",
    order=2,
    evaluations=2,
    noise=Noise.BROWNIAN,
    source=SOURCE,
    revision=2,
    remark=LIMIT,
    older={1: {"function": recorded.dpmpp_sde, "told": late_start}},
)
def dpmpp_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r: Annotated[float, Interval(1e-3, 100.0)] = 0.5,
) -> Steps:
    """Two ancestral steps from the same start: to the middle `r`, then all the way with the estimates blended.

    Also known as "DPM++ SDE". Not `dpmpp_2m_sde`, which keeps one evaluation a step.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            if math.isfinite(ctx.process.log_snr(sigma)):
                middle, blend = at_fraction(sigma, sigma_next, r, ctx), 1 / (2 * r)
            else:
                middle, blend = from_no_signal(sigma_next, 1 + eta, ctx), 1.0
            state = brownian_step(x, sigma, middle, denoised, eta, s_noise, ctx)
            halfway: Tensor = yield Evaluate(state, middle)
            x = brownian_step(x, sigma, sigma_next, denoised + (halfway - denoised) * blend, eta, s_noise, ctx)
        yield Step(x, denoised)
    return x


@solver(
    "dpmpp_2m_sde",
    order=2,
    noise=Noise.BROWNIAN,
    source=SOURCE + ", SDE 2M",
    revision=2,
    remark=LIMIT + BOUND,
    fixed=BOUNDED,
    older={1: {"fixed": UNBOUNDED, "told": late_start}},
)
def dpmpp_2m_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    solver_type: Annotated[str, Choices(("midpoint", "heun"))] = "midpoint",
    furthest: Furthest = FURTHEST,
) -> Steps:
    """SDE-DPM-Solver++(2M): a line through the last two estimates, in half log-SNR.

    Also known as "DPM++ 2M SDE", and as DPMSolverMultistepScheduler with sde-dpmsolver++.
    """
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = ctx.process.log_snr(sigma_next) - ctx.process.log_snr(sigma)
            alpha, decay = ctx.process.alpha(sigma_next), (1 + eta) * h
            x = x * (sigma_next / sigma * exp_decay(eta, h)) - denoised * (alpha * math.expm1(-decay))
            if last is not None:
                stretch = min(h / last[0], 2 * furthest)
                weight = -0.5 * math.expm1(-decay) if solver_type == "midpoint" else phi_2(decay)
                x = x + (denoised - last[1]) * (alpha * weight * stretch)
            x = fresh(x, sigma, sigma_next, eta, s_noise, h, ctx)
            last = h, denoised
        yield Step(x, denoised)
    return x


@solver(
    "dpmpp_3m_sde",
    order=3,
    noise=Noise.BROWNIAN,
    source="k-diffusion (Crowson 2023)",
    revision=2,
    remark=LIMIT + BOUND + HALVED,
    fixed={**BOUNDED, "curvature": 2.0},
    older={1: {"fixed": {**UNBOUNDED, "curvature": 1.0}, "told": late_start, "order": 2}},
)
def dpmpp_3m_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    furthest: Furthest = FURTHEST,
    curvature: Annotated[float, Interval(1.0, 2.0)] = 2.0,
) -> Steps:
    """SDE-DPM-Solver++(3M): a parabola through the last three estimates, in half log-SNR."""
    past: list[tuple[float, Tensor]] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = ctx.process.log_snr(sigma_next) - ctx.process.log_snr(sigma)
            alpha, decay = ctx.process.alpha(sigma_next), (1 + eta) * h
            x = x * (sigma_next / sigma * exp_decay(eta, h)) - denoised * (alpha * math.expm1(-decay))
            if past and h <= 2 * furthest * past[0][0] * (1 + 1e-9):
                is_near = math.isfinite(furthest) and len(past) > 1 and h > CURVED * past[1][0]
                x = x + bend(denoised, past[:1] if is_near else past, h, decay, curvature) * alpha
            x = fresh(x, sigma, sigma_next, eta, s_noise, h, ctx)
            past = [(h, denoised), *past[:1]]
        yield Step(x, denoised)
    return x


def bend(denoised: Tensor, past: list[tuple[float, Tensor]], h: float, decay: float, curvature: float) -> Tensor:
    """What slope and curvature of the estimates, per step `h`, add to the integral.

    The integral of the curvature's square is 2 phi_3; revision 1 counts it once, which costs an order.
    """
    (h1, first), *rest = past
    slope = (denoised - first) * (h / h1)
    if not rest or math.isinf(rest[0][0]):
        return slope * phi_2(decay)
    h2, second = rest[0]
    r0, r1 = h1 / h, h2 / h
    difference = slope - (first - second) / r1
    weight = phi_3(decay) * curvature
    return (slope + difference * (r0 / (r0 + r1))) * phi_2(decay) - difference * (weight / (r0 + r1))


alias("dpmpp_sde_gpu", "dpmpp_sde", on_device=True)
alias("dpmpp_2m_sde_gpu", "dpmpp_2m_sde", on_device=True)
alias("dpmpp_2m_sde_heun", "dpmpp_2m_sde", fixed={"solver_type": "heun"})
alias("dpmpp_2m_sde_heun_gpu", "dpmpp_2m_sde", fixed={"solver_type": "heun"}, on_device=True)
alias("dpmpp_3m_sde_gpu", "dpmpp_3m_sde", on_device=True)
