"""What the solvers in half log-SNR share: their first level, decay factors, phi functions and fresh noise."""

import math
from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context

START = 1e-4  # the percent at which revision 1 starts a run that begins with no signal at all


def started(sigmas: Sequence[float], ctx: Context) -> Sequence[float]:
    """The levels, in revision 1 with the first one moved down where its log-SNR is minus infinity."""
    if ctx.as_recorded and len(sigmas) > 1 and math.isinf(ctx.process.log_snr(sigmas[0])):
        return [ctx.rounded(ctx.levels.percent_to_sigma(START)), *sigmas[1:]]
    return sigmas


def rounded_middle(sigma: float, sigma_next: float, r: float, ctx: Context) -> float:
    """The level at the fraction `r` of the step in log-SNR; revision 1 rounds on the way: its noise depends on it."""
    keep = ctx.rounded if ctx.as_recorded else float
    start = keep(ctx.process.log_snr(sigma))
    if math.isinf(start):
        return sigma
    h = keep(keep(ctx.process.log_snr(sigma_next)) - start)
    return keep(ctx.process.sigma(keep(start + keep(r * h))))


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


def phi_2(decay: float) -> float:
    """(e^-z - 1) / z + 1: the weight of a slope over a step of `decay` z."""
    return math.expm1(-decay) / decay + 1 if decay > 1e-4 else decay / 2 - decay**2 / 6


def phi_3(decay: float) -> float:
    """phi_2 / z - 1/2: minus the weight of a curvature."""
    return phi_2(decay) / decay - 0.5 if decay > 1e-2 else -decay / 6 + decay**2 / 24 - decay**3 / 120
