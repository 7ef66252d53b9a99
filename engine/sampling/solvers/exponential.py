"""Exponential Runge-Kutta and Adams rules on denoised, in half log-SNR (Zhang 2023, arXiv:2308.02157, RES).

Stage weights after Hochbruck & Ostermann 2005 (SIAM J. Numer. Anal. 43), eqs. 5.4 and 5.8. With eta > 0 the reverse
SDE is solved: H = (1 + eta) h in place of h, and noise as in SEEDS (stages) or along a Brownian path (Adams).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpmpp import FURTHEST
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.lagrange import exponential_integrals
from sigmagraph.engine.sampling.solvers.parts.log_snr import exp_decay, fresh, phi_2
from sigmagraph.engine.sampling.solvers.parts.near_levels import CURVED
from sigmagraph.engine.sampling.solvers.parts.stages import StageNoise, first_order, from_no_signal_in_stages

SOURCE = "Zhang 2023, arXiv:2308.02157; Hochbruck & Ostermann 2005"
Inside = Annotated[float, Interval(1e-3, 1.0)]
AS_ODE = {"eta": 0.0, "s_noise": 0.0}


@solver("res_2s_sde", order=2, evaluations=2, noise=Noise.SEQUENCE, source=SOURCE, as_ode=AS_ODE)
def res_2s(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    c2: Inside = 0.5,
) -> Steps:
    """Two stages, the second at the fraction `c2`: stiff order 2."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        start, end = ctx.process.log_snr(sigma), ctx.process.log_snr(sigma_next)
        noise = StageNoise(eta, s_noise, ctx)
        if sigma_next == 0:
            x = denoised
        elif math.isinf(start):
            x = yield from from_no_signal_in_stages(x, sigma, sigma_next, denoised, noise, eta, ctx)
        else:
            h, decay = end - start, (1 + eta) * (end - start)
            inner = ctx.process.sigma(start + c2 * h)
            state = noise.added(first_order(x, sigma, inner, denoised, eta, ctx), inner, c2 * h)
            second: Tensor = yield Evaluate(state, inner)
            slope = (second - denoised) * (ctx.process.alpha(sigma_next) * phi_2(decay) / c2)
            x = noise.added(first_order(x, sigma, sigma_next, denoised, eta, ctx) + slope, sigma_next, (1 - c2) * h)
        yield Step(x, denoised)
    return x


@solver("res_3s_sde", order=3, evaluations=3, noise=Noise.SEQUENCE, source=SOURCE, as_ode=AS_ODE)
def res_3s(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    c2: Annotated[float, Interval(1e-3, 0.6)] = 0.5,
    c3: Inside = 1.0,
) -> Steps:
    """Three stages at 0, `c2` and `c3`, weights b2 = gamma b3: order 3."""
    gamma = (3 * c3**2 - 2 * c3) / (c2 * (2 - 3 * c2))
    process = ctx.process
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        start, end = process.log_snr(sigma), process.log_snr(sigma_next)
        noise = StageNoise(eta, s_noise, ctx)
        if sigma_next == 0:
            x = denoised
        elif math.isinf(start):
            x = yield from from_no_signal_in_stages(x, sigma, sigma_next, denoised, noise, eta, ctx)
        else:
            h, decay = end - start, (1 + eta) * (end - start)
            inner, outer = process.sigma(start + c2 * h), process.sigma(start + c3 * h)
            state = noise.added(first_order(x, sigma, inner, denoised, eta, ctx), inner, c2 * h)
            second: Tensor = yield Evaluate(state, inner)
            # phi_2 here is z times the usual one, so the powers of c are one lower than in the paper
            a32 = gamma * phi_2(c2 * decay) + c3 / c2 * phi_2(c3 * decay)
            state = first_order(x, sigma, outer, denoised, eta, ctx) + (second - denoised) * (
                process.alpha(outer) * a32
            )
            third: Tensor = yield Evaluate(noise.added(state, outer, (c3 - c2) * h), outer)
            b3 = process.alpha(sigma_next) * phi_2(decay) / (gamma * c2 + c3)
            x = first_order(x, sigma, sigma_next, denoised, eta, ctx)
            x = x + (second - denoised) * (gamma * b3) + (third - denoised) * b3
            x = noise.added(x, sigma_next, (1 - c3) * h)
        yield Step(x, denoised)
    return x


def adams(x: Tensor, sigmas: Sequence[float], ctx: Context, eta: float, s_noise: float, count: int) -> Steps:
    """The polynomial through the last `count` estimates, integrated exactly against the exponential."""
    lams: list[float] = []
    past: list[Tensor] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        lam = ctx.process.log_snr(sigma)
        lams, past = [lam, *lams][:count], [denoised, *past][:count]
        if sigma_next == 0:
            x = denoised
        else:
            end = ctx.process.log_snr(sigma_next)
            nodes = [one for one in lams if math.isfinite(one)] or [end]
            if len(nodes) > 1 and end - lam > 2 * FURTHEST * (lam - nodes[1]) * (1 + 1e-9):
                nodes = nodes[:1]  # so far a step says nothing about how the estimate goes on
            if len(nodes) > 2 and end - lam > CURVED * (nodes[1] - nodes[2]):
                nodes = nodes[:2]
            weights = exponential_integrals(nodes, lam, end, 1 + eta)
            x = x * (sigma_next / sigma * exp_decay(eta, end - lam))
            for estimate, weight in zip(past, weights, strict=False):
                x = x + estimate * (weight * ctx.process.alpha(sigma_next))
            x = fresh(x, sigma, sigma_next, eta, s_noise, end - lam, ctx)
        yield Step(x, denoised)
    return x


@solver("res_2m_sde", order=2, noise=Noise.BROWNIAN, source=SOURCE, as_ode=AS_ODE)
def res_2m(x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0) -> Steps:
    """Two-step exponential Adams."""
    return (yield from adams(x, sigmas, ctx, eta, s_noise, 2))


@solver("res_3m_sde", order=3, noise=Noise.BROWNIAN, source=SOURCE, as_ode=AS_ODE)
def res_3m(x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 1.0, s_noise: Strength = 1.0) -> Steps:
    """Three-step exponential Adams."""
    return (yield from adams(x, sigmas, ctx, eta, s_noise, 3))


for _stages in ("2s", "3s", "2m", "3m"):
    alias(f"res_{_stages}", f"res_{_stages}_sde", fixed=AS_ODE, noise=Noise.NONE)
