"""SEEDS (Gonzalez 2023, arXiv:2305.14267): exponential stages for the reverse SDE, in half log-SNR.

h is the step, H = (1 + eta) h. Each stage's noise continues the one before it: nu' = e^(-eta dlam) nu + fresh.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Range
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpmpp_sde import LIMIT
from sigmagraph.engine.sampling.solvers.euler import Strength
from sigmagraph.engine.sampling.solvers.log_snr import exp_decay, from_no_signal, rounded_middle, started

SOURCE = "Gonzalez 2023, arXiv:2305.14267"
Inside = Annotated[float, Range(1e-3, 1.0)]


class StageNoise:
    """The noise of one step's stages, in units of the level reached; nothing where eta or s_noise is 0."""

    def __init__(self, eta: float, s_noise: float, ctx: Context) -> None:
        self._eta, self._s_noise, self._ctx = eta, s_noise, ctx
        self._sum: Tensor | None = None

    def added(self, x: Tensor, sigma: float, dlam: float) -> Tensor:
        """`x` with the noise gathered after a further stretch `dlam` of log-SNR, ending at `sigma`."""
        if self._eta * self._s_noise == 0:
            return x
        dlam = max(dlam, 0.0)  # a stage at the very end of its step may be a rounding error beyond it
        new = self._ctx.draw() * math.sqrt(-math.expm1(-2 * self._eta * dlam))
        self._sum = new if self._sum is None else self._sum * exp_decay(self._eta, dlam) + new
        return x + self._sum * (sigma * self._s_noise)


def big_phi_2(z: float) -> float:
    """(e^z - 1 - z) / z."""
    return (math.expm1(z) - z) / z if abs(z) > 1e-5 else z / 2 + z**2 / 6


@solver("seeds_2", order=2, evaluations=2, noise=Noise.SEQUENCE, source=SOURCE + ", SEEDS-2", revision=2, remark=LIMIT)
def seeds_2(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    r: Inside = 0.5,
    solver_type: Annotated[str, Choices(("phi_1", "phi_2"))] = "phi_1",
) -> Steps:
    """Two stages: at the fraction `r` of the step and at its end."""
    process = ctx.process
    for sigma, sigma_next in pairwise(started(sigmas, ctx)):
        denoised: Tensor = yield Evaluate(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            start, end = process.log_snr(sigma), process.log_snr(sigma_next)
            unlimited = math.isinf(start)
            middle = (
                from_no_signal(sigma_next, 1 + eta, ctx) if unlimited else rounded_middle(sigma, sigma_next, r, ctx)
            )
            inner = process.log_snr(middle)
            noise = StageNoise(eta, s_noise, ctx)
            state = noise.added(first_order(x, sigma, middle, denoised, eta, ctx), middle, inner - start)
            second: Tensor = yield Evaluate(state, middle)
            z = -(1 + eta) * (end - start)
            weight = math.expm1(z) / (2 * r) if solver_type == "phi_1" else big_phi_2(z) / r if not unlimited else 0.0
            weight = math.expm1(z) if unlimited else weight
            x = x * (sigma_next / sigma * exp_decay(eta, end - start)) - (
                denoised * (math.expm1(z) - weight) + second * weight
            ) * process.alpha(sigma_next)
            x = noise.added(x, sigma_next, end - inner)
        yield Step(x, denoised)
    return x


def first_order(x: Tensor, sigma: float, target: float, denoised: Tensor, eta: float, ctx: Context) -> Tensor:
    """The exponential Euler step to `target`, without its noise."""
    h = ctx.process.log_snr(target) - ctx.process.log_snr(sigma)
    return x * (target / sigma * exp_decay(eta, h)) - denoised * (
        ctx.process.alpha(target) * math.expm1(-(1 + eta) * h)
    )


@solver("seeds_3", order=3, evaluations=3, noise=Noise.SEQUENCE, source=SOURCE + ", SEEDS-3", revision=2, remark=LIMIT)
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
    for sigma, sigma_next in pairwise(started(sigmas, ctx)):
        denoised: Tensor = yield Evaluate(x, sigma)
        start, end = process.log_snr(sigma), process.log_snr(sigma_next)
        if sigma_next == 0:
            x = denoised
        elif math.isinf(start):
            x = yield from from_no_signal_in_stages(
                x, sigma, sigma_next, denoised, StageNoise(eta, s_noise, ctx), eta, ctx
            )
        else:
            h, noise = end - start, StageNoise(eta, s_noise, ctx)
            near, far = process.sigma(start + r1 * h), process.sigma(start + r2 * h)
            state = noise.added(first_order(x, sigma, near, denoised, eta, ctx), near, r1 * h)
            second: Tensor = yield Evaluate(state, near)
            z = -(1 + eta) * h
            bend = big_phi_2(r2 * z) * (r2 / r1) * process.alpha(far)
            state = first_order(x, sigma, far, denoised, eta, ctx) - (second - denoised) * bend
            third: Tensor = yield Evaluate(noise.added(state, far, (r2 - r1) * h), far)
            bend = big_phi_2(z) / r2 * process.alpha(sigma_next)
            x = first_order(x, sigma, sigma_next, denoised, eta, ctx) - (third - denoised) * bend
            x = noise.added(x, sigma_next, (1 - r2) * h)
        yield Step(x, denoised)
    return x


def from_no_signal_in_stages(
    x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, noise: StageNoise, eta: float, ctx: Context
) -> Steps:
    """The first step where no signal is left: two-point Gauss-Laguerre nodes 2 +- sqrt 2 behind the step's end."""
    process, rate = ctx.process, 1 + eta
    end = process.log_snr(sigma_next)
    first, second = end - (2 + math.sqrt(2)) / rate, end - (2 - math.sqrt(2)) / rate
    far, near = process.sigma(first), process.sigma(second)
    state = noise.added(first_order(x, sigma, far, denoised, eta, ctx), far, math.inf)
    early: Tensor = yield Evaluate(state, far)
    state = noise.added(first_order(x, sigma, near, early, eta, ctx), near, second - first)
    late: Tensor = yield Evaluate(state, near)
    share = (2 - math.sqrt(2)) / 4
    x = first_order(x, sigma, sigma_next, early * share + late * (1 - share), eta, ctx)
    return noise.added(x, sigma_next, end - second)


alias(
    "exp_heun_2_x0", "seeds_2", fixed={"solver_type": "phi_2", "r": 1.0, "eta": 0.0, "s_noise": 0.0}, noise=Noise.NONE
)
alias("exp_heun_2_x0_sde", "seeds_2", fixed={"solver_type": "phi_2", "r": 1.0})
