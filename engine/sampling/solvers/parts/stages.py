"""Stages of exponential single-step rules for the reverse SDE, in half log-SNR: their noise, and the first order."""

import math

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Steps
from sigmagraph.engine.sampling.solvers.parts.log_snr import exp_decay


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


def first_order(x: Tensor, sigma: float, target: float, denoised: Tensor, eta: float, ctx: Context) -> Tensor:
    """The exponential Euler step to `target`, without its noise."""
    h = ctx.process.log_snr(target) - ctx.process.log_snr(sigma)
    return x * (target / sigma * exp_decay(eta, h)) - denoised * (
        ctx.process.alpha(target) * math.expm1(-(1 + eta) * h)
    )


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


def big_phi_2(z: float) -> float:
    """(e^z - 1 - z) / z."""
    return (math.expm1(z) - z) / z if abs(z) > 1e-5 else z / 2 + z**2 / 6
