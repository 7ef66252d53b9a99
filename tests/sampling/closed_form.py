"""Problems whose exact answer is known: a two-bump density on the line, and a Gaussian, both under rectified flow.

On the line the probability-flow ODE moves every point so that its quantile stays what it is. So the exact path follows
from the distribution function of the noised density, whatever the solver.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.sampling import ComfyNoise, Parameterisation, Prediction, sd3
from sigmagraph.engine.sampling.noise import NoiseSource
from sigmagraph.engine.sampling.solver import Solver
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of, drive

WEIGHTS, MEANS, STDS = (0.35, 0.65), (-1.2, 0.7), (0.35, 0.5)
GAUSS_MEAN, GAUSS_STD = 0.8, 0.6


def bumps(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    """The posterior mean under the two bumps; cond and uncond agree."""
    a = 1.0 - sigma
    variances = [a**2 * std**2 + sigma**2 for std in STDS]
    logits = [
        math.log(w) - 0.5 * math.log(v) - (x - a * m) ** 2 / (2 * v)
        for w, m, v in zip(WEIGHTS, MEANS, variances, strict=True)
    ]
    shares = torch.stack(logits).softmax(0)
    parts = [m + a * std**2 / v * (x - a * m) for m, std, v in zip(MEANS, STDS, variances, strict=True)]
    denoised = (shares * torch.stack(parts)).sum(0)
    return Prediction(denoised, denoised)


def bumps_below(x: Tensor, sigma: float) -> Tensor:
    """The noised density's distribution function."""
    a = 1.0 - sigma
    total = torch.zeros_like(x)
    for w, m, std in zip(WEIGHTS, MEANS, STDS, strict=True):
        total = total + w * torch.special.ndtr((x - a * m) / math.sqrt(a**2 * std**2 + sigma**2))
    return total


def carried(x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Where the exact flow takes `x` from one level to another: the point of equal quantile, by bisection."""
    quantile = bumps_below(x, sigma)
    low, high = torch.full_like(x, -12.0), torch.full_like(x, 12.0)
    for _ in range(200):
        middle = (low + high) / 2
        is_below = bumps_below(middle, sigma_next) < quantile
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (low + high) / 2


def gauss(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
    """The posterior mean under one Gaussian; cond and uncond agree."""
    a = 1.0 - sigma
    gain = a * GAUSS_STD**2 / (a**2 * GAUSS_STD**2 + sigma**2)
    denoised = GAUSS_MEAN + gain * (x - a * GAUSS_MEAN)
    return Prediction(denoised, denoised)


def solve(
    solver: Solver,
    x: Tensor,
    sigmas: Sequence[float],
    denoiser: Any,
    options: Mapping[str, object] | None = None,
    noise: NoiseSource | None = None,
    model: Parameterisation | None = None,
) -> Tensor:
    """Run a solver from a given state, with nothing of `sample` round it."""
    context = context_of(solver, x, sigmas, model or sd3(), noise or ComfyNoise(0))
    steps = drive(SolverRun(solver, x, sigmas, context, options or {}), denoiser)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Tensor = end.value
            return result


def eased_in(first: float, last: float, steps: int) -> list[float]:
    """Levels of a flow, even in half log-SNR but for the beginning, where steps grow from steps^-2 by a half each.

    So the low-order steps with which a multistep rule gathers its history do not hide its order. They may rise.
    """
    start, end = math.log((1 - first) / first), math.log((1 - last) / last)
    if end < start:
        return [1 - level for level in eased_in(1 - first, 1 - last, steps)]
    growing, width = [0.0], (end - start) / steps
    small = width / steps
    while small < width:
        growing.append(growing[-1] + small)
        small *= 1.5
    rest = end - start - growing[-1]
    even = [growing[-1] + rest * i / steps for i in range(1, steps + 1)]
    return [1 / (1 + math.exp(start + at)) for at in (*growing, *even)]


def flow_error(solver: Solver, steps: int, first: float = 0.9, last: float = 0.1) -> float:
    """Root mean square distance from the exact flow after this many steps, float64."""
    start = torch.linspace(-2.2, 2.2, 41, dtype=torch.float64).reshape(1, 1, 41, 1)
    result = solve(solver, start, eased_in(first, last, steps), bumps, solver.ode_options)
    return float((result - carried(start, first, last)).square().mean().sqrt())


def measured_order(solver: Solver, coarse: int = 40, fine: int = 160) -> float:
    """The exponent with which the error falls between two step counts."""
    return math.log(flow_error(solver, coarse) / flow_error(solver, fine)) / math.log(fine / coarse)
