"""The loop of multistep rules on the slope d = (x - denoised) / sigma; a rule is how it weights the last slopes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.solver import Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.lagrange import integrals
from sigmagraph.engine.sampling.solvers.parts.near_levels import steady

# (levels of the slopes, newest first; the next level) -> one weight per slope, the step's width included
Weights: TypeAlias = Callable[[Sequence[float], float], list[float]]


def multistep(x: Tensor, sigmas: Sequence[float], order: int, weights: Weights) -> Steps:
    """Take the last `order` slopes, weight them and step. The step onto sigma 0 is x = denoised."""
    slopes: list[Tensor] = []
    levels: list[float] = []
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        slopes, levels = [(x - denoised) / sigma, *slopes][:order], [sigma, *levels][:order]
        if sigma_next == 0:
            x = denoised
        else:
            for slope, weight in zip(slopes, weights(levels, sigma_next), strict=True):
                x = x.add(slope, alpha=weight)
        yield Step(x, denoised)
    return x


def exact(levels: Sequence[float], sigma_next: float) -> list[float]:
    """The integrals of the Lagrange polynomials through the slopes: right for any spacing."""
    return steady(lambda nodes: integrals(nodes, nodes[0], sigma_next), levels, sigma_next - levels[0])
