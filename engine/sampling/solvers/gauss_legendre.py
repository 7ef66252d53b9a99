"""Fully implicit collocation at Gauss-Legendre nodes (Kuntzmann 1961, Butcher 1964), in half log-SNR."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Range
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.gauss import gauss_legendre
from sigmagraph.engine.sampling.solvers.lagrange import exponential_integrals
from sigmagraph.engine.sampling.solvers.stages import StageNoise, from_no_signal_in_stages


@solver(
    "gauss_legendre_2s",
    order=4,
    evaluations=7,
    source="Hairer & Wanner, Solving ODEs II, section IV.5, on the exponential form of Zhang 2023",
    remark="1 + 2 `rounds` evaluations a step",
)
def gauss_legendre_2s(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, rounds: Annotated[int, Range(1, 20)] = 3
) -> Steps:
    """Two implicit stages, solved by `rounds` fixed-point rounds: each gains an order, up to 4."""
    fractions = [(1 + node) / 2 for node, _ in gauss_legendre(2)]
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        start, end = ctx.process.log_snr(sigma), ctx.process.log_snr(sigma_next)
        if sigma_next == 0:
            x = denoised
        elif math.isinf(start):
            x = yield from from_no_signal_in_stages(x, sigma, sigma_next, denoised, StageNoise(0, 0, ctx), 0, ctx)
        else:
            nodes = [start + c * (end - start) for c in fractions]
            inner = [ctx.process.sigma(node) for node in nodes]
            estimates = [denoised, denoised]
            for _ in range(rounds):
                states = [
                    collocated(x, sigma, level, estimates, exponential_integrals(nodes, start, node, 1.0), ctx)
                    for node, level in zip(nodes, inner, strict=True)
                ]
                estimates = []
                for state, level in zip(states, inner, strict=True):
                    estimate: Tensor = yield Evaluate(state, level)
                    estimates.append(estimate)
            x = collocated(x, sigma, sigma_next, estimates, exponential_integrals(nodes, start, end, 1.0), ctx)
        yield Step(x, denoised)
    return x


def collocated(
    x: Tensor, sigma: float, target: float, estimates: Sequence[Tensor], weights: Sequence[float], ctx: Context
) -> Tensor:
    """The state at `target` if the estimate is the polynomial through the stages."""
    x = x * (target / sigma)
    for estimate, weight in zip(estimates, weights, strict=True):
        x = x + estimate * (weight * ctx.process.alpha(target))
    return x
