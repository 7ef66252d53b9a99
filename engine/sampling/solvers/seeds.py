"""SEEDS (Gonzalez 2023, arXiv:2305.14267): exponential stages for the reverse SDE, in half log-SNR.

h is the step, H = (1 + eta) h. Each stage's noise continues the one before it: nu' = e^(-eta dlam) nu + fresh.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpmpp_sde import LIMIT
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.log_snr import at_fraction, exp_decay, from_no_signal
from sigmagraph.engine.sampling.solvers.parts.stages import StageNoise, big_phi_2, first_order, from_no_signal_in_stages
from sigmagraph.engine.sampling.solvers.recorded import seeds as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import late_start

SOURCE = "Gonzalez 2023, arXiv:2305.14267"
Inside = Annotated[float, Interval(1e-3, 1.0)]
Phi = Annotated[str, Choices(("phi_1", "phi_2"))]


@solver(
    "seeds_2",
    order=2,
    evaluations=2,
    noise=Noise.SEQUENCE,
    source=SOURCE + ", SEEDS-2",
    revision=2,
    remark=LIMIT,
    older={1: {"function": recorded.seeds_2, "told": late_start}},
)
def seeds_2(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r: Inside = 0.5,
    solver_type: Phi = "phi_1",
) -> Steps:
    """Two stages: at the fraction `r` of the step and at its end."""
    process = ctx.process
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            start, end = process.log_snr(sigma), process.log_snr(sigma_next)
            has_signal = math.isfinite(start)
            middle = at_fraction(sigma, sigma_next, r, ctx) if has_signal else from_no_signal(sigma_next, 1 + eta, ctx)
            inner, noise = process.log_snr(middle), StageNoise(eta, s_noise, ctx)
            state = noise.added(first_order(x, sigma, middle, denoised, eta, ctx), middle, inner - start)
            second: Tensor = yield Evaluate(state, middle)
            z = -(1 + eta) * (end - start)
            weight = second_weight(z, r, solver_type) if has_signal else math.expm1(z)
            pull = denoised * (math.expm1(z) - weight) + second * weight
            x = x * (sigma_next / sigma * exp_decay(eta, end - start)) - pull * process.alpha(sigma_next)
            x = noise.added(x, sigma_next, end - inner)
        yield Step(x, denoised)
    return x


def second_weight(z: float, r: float, solver_type: str) -> float:
    """What the second stage's estimate counts: a half of the integral at r = 1/2, or the exact one of a line."""
    return math.expm1(z) / (2 * r) if solver_type == "phi_1" else big_phi_2(z) / r


@solver(
    "seeds_3",
    order=3,
    evaluations=3,
    noise=Noise.SEQUENCE,
    source=SOURCE + ", SEEDS-3",
    revision=2,
    remark=LIMIT,
    older={1: {"told": late_start}},
)
def seeds_3(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r1: Inside = 1 / 3,
    r2: Inside = 2 / 3,
) -> Steps:
    """Three stages: at the fractions `r1` and `r2` and at the end."""
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
            h, z = end - start, -(1 + eta) * (end - start)
            near, far = process.sigma(start + r1 * h), process.sigma(start + r2 * h)
            state = noise.added(first_order(x, sigma, near, denoised, eta, ctx), near, r1 * h)
            second: Tensor = yield Evaluate(state, near)
            bend = big_phi_2(r2 * z) * (r2 / r1) * process.alpha(far)
            state = first_order(x, sigma, far, denoised, eta, ctx) - (second - denoised) * bend
            third: Tensor = yield Evaluate(noise.added(state, far, (r2 - r1) * h), far)
            bend = big_phi_2(z) / r2 * process.alpha(sigma_next)
            x = first_order(x, sigma, sigma_next, denoised, eta, ctx) - (third - denoised) * bend
            x = noise.added(x, sigma_next, (1 - r2) * h)
        yield Step(x, denoised)
    return x


alias(
    "exp_heun_2_x0", "seeds_2", fixed={"solver_type": "phi_2", "r": 1.0, "eta": 0.0, "s_noise": 0.0}, noise=Noise.NONE
)
alias("exp_heun_2_x0_sde", "seeds_2", fixed={"solver_type": "phi_2", "r": 1.0})
