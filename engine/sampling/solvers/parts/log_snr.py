"""What the solvers in half log-SNR share: levels within a step, decay factors, phi functions and fresh noise."""

import math

from torch import Tensor

from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context


def at_fraction(sigma: float, sigma_next: float, r: float, ctx: Context) -> float:
    """The level at the fraction `r` of the step in log-SNR."""
    start = ctx.process.log_snr(sigma)
    return ctx.process.sigma(start + r * (ctx.process.log_snr(sigma_next) - start))


def from_no_signal(sigma_next: float, rate: float, ctx: Context) -> float:
    """The level to evaluate at in a step that starts with no signal at all: the one-point Gauss-Laguerre node.

    The step integrates the estimate against e^(rate u) over all log-SNR below `sigma_next`; that node is exact for
    estimates linear in log-SNR.
    """
    return ctx.process.sigma(ctx.process.log_snr(sigma_next) - 1 / rate)


def exp_decay(rate: float, h: float) -> float:
    """e^(-rate h), with 1 for rate 0 even where h is infinite."""
    return math.exp(-rate * h) if rate > 0 else 1.0


def fresh(x: Tensor, sigma: float, sigma_next: float, eta: float, s_noise: float, h: float, ctx: Context) -> Tensor:
    """Add the noise that an SDE step of strength `eta` brings in, from the Brownian path."""
    if eta * s_noise == 0:
        return x
    return x + ctx.brownian(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise)


def brownian_step(
    x: Tensor, sigma: float, target: float, denoised: Tensor, eta: float, s_noise: float, ctx: Context
) -> Tensor:
    """One first-order ancestral step in sigma / alpha, from `sigma` to `target`, its noise from the Brownian path."""
    alpha, alpha_target = ctx.process.alpha(sigma), ctx.process.alpha(target)
    relative = sigma / alpha if alpha > 0 else math.inf
    down, up = split(relative, target / alpha_target, eta)
    kept = alpha_target * down / sigma  # alpha_target / alpha * down / relative, without its poles
    x = x * kept + denoised * (alpha_target - kept * alpha)
    return x + ctx.brownian(sigma, target) * (alpha_target * up * s_noise) if eta * s_noise > 0 else x


def phi_2(decay: float) -> float:
    """(e^-z - 1) / z + 1: the weight of a slope over a step of `decay` z."""
    return math.expm1(-decay) / decay + 1 if decay > 1e-4 else decay / 2 - decay**2 / 6


def phi_3(decay: float) -> float:
    """phi_2 / z - 1/2: minus the weight of a curvature."""
    return phi_2(decay) / decay - 0.5 if decay > 1e-2 else -decay / 6 + decay**2 / 24 - decay**3 / 120
