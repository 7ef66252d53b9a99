"""Exponential Runge-Kutta rules in half log-SNR, from their tableaux (Hochbruck & Ostermann 2005).

Over a step h, x' = sigma'/sigma x + alpha' h sum b_j(-h) D_j; stages alike, up to the fraction c_i of the step.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, SolverFunction, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.stages import StageNoise, first_order, from_no_signal_in_stages
from sigmagraph.engine.sampling.solvers.parts.tableaux import EXPONENTIAL, Exponential, Weight

__all__ = ["add_exponential", "phi"]

TERMS = 20


def phi(k: int, z: float) -> float:
    """phi_k(z) = sum z^m / (m + k)!, for z at most 0: by the series near 0, else phi_(k+1) = (phi_k - 1/k!) / z."""
    if z > -1:
        return sum(z**m / math.factorial(m + k) for m in range(TERMS))
    return math.exp(z) if k == 0 else (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z


def as_floats(weights: Mapping[int, Weight]) -> list[tuple[int, list[tuple[float, int, float]]]]:
    """The same in floats, by stage."""
    return [(j, [(float(a), k, float(c)) for a, k, c in terms]) for j, terms in weights.items()]


def total(terms: Sequence[tuple[float, int, float]], h: float) -> float:
    """A weight of a step h."""
    return sum(a * phi(k, -c * h) for a, k, c in terms)


def rule_of(tableau: Exponential) -> SolverFunction:
    """The rule over the schedule's steps."""
    nodes = [float(one) for one in tableau.nodes[1:]]
    rows, weights = [as_floats(one) for one in tableau.stages], as_floats(tableau.weights)

    def rule(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
        process = ctx.process
        for sigma, sigma_next in pairwise(sigmas):
            denoised: Tensor = yield Evaluate(x, sigma)
            start, end = process.log_snr(sigma), process.log_snr(sigma_next)
            if sigma_next == 0:
                x = denoised
            elif math.isinf(start):
                x = yield from from_no_signal_in_stages(x, sigma, sigma_next, denoised, StageNoise(0, 0, ctx), 0, ctx)
            else:
                h, changes = end - start, [denoised]
                for node, line in zip(nodes, rows, strict=True):
                    level = process.sigma(start + node * h)
                    state = first_order(x, sigma, level, denoised, 0.0, ctx)
                    for j, terms in line:
                        state = state + changes[j] * (process.alpha(level) * h * total(terms, h))
                    further: Tensor = yield Evaluate(state, level)
                    changes.append(further - denoised)
                x = first_order(x, sigma, sigma_next, denoised, 0.0, ctx)
                for j, terms in weights:
                    x = x + changes[j] * (process.alpha(sigma_next) * h * total(terms, h))
            yield Step(x, denoised)
        return x

    rule.__doc__ = (
        f"Exponential Runge-Kutta of order {tableau.order}, stiff order {tableau.stiff_order}, "
        f"{len(tableau.nodes)} stages."
    )
    return rule


def registered(tableau: Exponential) -> None:
    """A sampler of the tableau's name."""
    solver(tableau.name, order=tableau.order, evaluations=len(tableau.nodes), source=tableau.source)(rule_of(tableau))


def add_exponential(tableau: Exponential) -> None:
    """Prove a tableau, then make a sampler of it; what breaks its order is an error that names the condition."""
    from sigmagraph.engine.sampling.solvers.parts.order_conditions import proven  # its trees are not needed at import

    proven(tableau)
    registered(tableau)


for _tableau in EXPONENTIAL:
    registered(_tableau)
