"""Fully implicit collocation rules (Kuntzmann 1961, Butcher 1964), from their node polynomials, in half log-SNR.

Gauss-Legendre, Radau IIA and Lobatto IIIA. The stages are solved by a fixed number of fixed-point rounds.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, SolverFunction, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.gauss import gauss_legendre
from sigmagraph.engine.sampling.solvers.parts.lagrange import exponential_integrals
from sigmagraph.engine.sampling.solvers.parts.stages import StageNoise, from_no_signal_in_stages
from sigmagraph.engine.sampling.solvers.parts.tableaux import COLLOCATION, Collocation

__all__ = ["add_collocation", "nodes_of"]


@cache
def nodes_of(tableau: Collocation) -> tuple[float, ...]:
    """The roots in [0, 1], ascending: Gauss nodes by Newton, others by signs on a grid of 64 and exact bisection."""
    polynomial = tableau.polynomial
    if tableau.order == 2 * tableau.count:
        return tuple((1 + node) / 2 for node, _ in gauss_legendre(tableau.count))

    def value(at: Fraction) -> Fraction:
        return sum((one * at**power for power, one in enumerate(polynomial)), Fraction(0))

    found = []
    for place in range(65):
        low, high = Fraction(place, 64), Fraction(place + 1, 64)
        if value(low) == 0:
            found.append(float(low))
        elif place < 64 and value(low) * value(high) < 0:
            for _ in range(56):
                middle = (low + high) / 2
                low, high = (middle, high) if value(low) * value(middle) > 0 else (low, middle)
            found.append(float(low))
    return tuple(found)


def rule_of(tableau: Collocation) -> SolverFunction:
    """The rule over the schedule's steps: each round of the fixed point gains an order, up to the tableau's."""

    def rule(
        x: Tensor, sigmas: Sequence[float], ctx: Context, *, rounds: Annotated[int, Interval(1, 20)] = tableau.order - 1
    ) -> Steps:
        fractions = nodes_of(tableau)
        known = 1 if tableau.begins_the_step else 0  # stages whose estimate is there already
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
                estimates = [denoised] * len(nodes)
                for _ in range(rounds):
                    states = [
                        collocated(x, sigma, level, estimates, exponential_integrals(nodes, start, node, 1.0), ctx)
                        for node, level in list(zip(nodes, inner, strict=True))[known:]
                    ]
                    estimates = estimates[:known]
                    for state, level in zip(states, inner[known:], strict=True):
                        estimate: Tensor = yield Evaluate(state, level)
                        estimates.append(estimate)
                x = collocated(x, sigma, sigma_next, estimates, exponential_integrals(nodes, start, end, 1.0), ctx)
            yield Step(x, denoised)
        return x

    rule.__doc__ = (
        f"{tableau.count} implicit stages, solved by `rounds` fixed-point rounds: each gains an order, "
        f"up to {tableau.order}."
    )
    return rule


def collocated(
    x: Tensor, sigma: float, target: float, estimates: Sequence[Tensor], weights: Sequence[float], ctx: Context
) -> Tensor:
    """The state at `target` if the estimate is the polynomial through the stages."""
    x = x * (target / sigma)
    for estimate, weight in zip(estimates, weights, strict=True):
        x = x + estimate * (weight * ctx.process.alpha(target))
    return x


def registered(tableau: Collocation) -> None:
    """A sampler of the tableau's name."""
    a_round = tableau.count - tableau.begins_the_step
    solver(
        tableau.name,
        order=tableau.order,
        evaluations=1 + (tableau.order - 1) * a_round,
        source=tableau.source,
        remark=f"1 + {a_round} `rounds` evaluations a step",
    )(rule_of(tableau))


def add_collocation(tableau: Collocation) -> None:
    """Prove a tableau, then make a sampler of it; what breaks its order is an error that names the condition."""
    from sigmagraph.engine.sampling.solvers.parts.order_conditions import proven  # not needed at import

    proven(tableau)
    registered(tableau)


for _tableau in COLLOCATION:
    registered(_tableau)
