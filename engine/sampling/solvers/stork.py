"""STORK (Tan 2025, arXiv:2505.24210): stabilised Runge-Kutta rules whose inner slopes come from a Taylor polynomial.

A step has many stages, but asks the model once: the slope at a stage is foretold from the last ones as a polynomial in
the level. Such a slope does not look at the stage's state, so the stages can be summed beforehand. With b_j and c_j the
rule's weights and nodes, and v_p the polynomial's coefficients,

    x' = x + sum over p of h^(p+1) m_p v_p,      m_p = sum over j of b_j c_j^p.

So a rule is known by its moments m_p, and 1 / (p + 1) is the exact integral. STORK-2 has the Gegenbauer rule RKG2
inside (Skaras 2021, J. Comput. Phys. 425), whose m_0 and m_1 are exact. STORK-4 has ROCK4 (Abdulle 2002), a rule of
order 4: its order conditions fix m_0 to m_3, so that it is Adams-Bashforth of order 4 here, at any number of stages.
"""

from collections.abc import Sequence
from functools import cache
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.lagrange import basis
from sigmagraph.engine.sampling.solvers.parts.multistep import multistep
from sigmagraph.engine.sampling.solvers.parts.near_levels import steady

__all__ = ["gegenbauer_moments"]

SOURCE = "Tan 2025, arXiv:2505.24210 (STORK-"
Taylor = Annotated[int, Interval(1, 3)]
POWERS = 4


@solver("stork_2", order=2, inverts=True, source=SOURCE + "2), the Gegenbauer rule RKG2 inside")
def stork_2(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    stages: Annotated[int, Interval(2, 1000)] = 50,
    taylor: Taylor = 2,
) -> Steps:
    """RKG2 of `stages` stages in sigma, its slopes a polynomial of degree `taylor` through the last ones."""
    moments = gegenbauer_moments(stages)
    return (yield from multistep(x, sigmas, taylor + 1, lambda levels, last: _weights(levels, last, moments)))


@solver("stork_4", order=4, inverts=True, source=SOURCE + "4): ROCK4 inside, which is Adams-Bashforth here")
def stork_4(x: Tensor, sigmas: Sequence[float], ctx: Context, *, taylor: Taylor = 3) -> Steps:
    """A stabilised rule of order 4 in sigma, its slopes a polynomial of degree `taylor` through the last ones."""
    moments = [1 / (power + 1) for power in range(POWERS)]
    return (yield from multistep(x, sigmas, taylor + 1, lambda levels, last: _weights(levels, last, moments)))


def _weights(levels: Sequence[float], sigma_next: float, moments: Sequence[float]) -> list[float]:
    """One weight per slope, newest first: the rule applied to each slope's Lagrange polynomial."""
    width = sigma_next - levels[0]

    def of(nodes: Sequence[float]) -> list[float]:
        return [
            sum(c * width ** (power + 1) * moments[power] for power, c in enumerate(basis(nodes, which)))
            for which in range(len(nodes))
        ]

    return steady(of, [level - levels[0] for level in levels], width)


@cache
def gegenbauer_moments(stages: int) -> tuple[float, ...]:
    """m_0 to m_3 of RKG2: its recursion on the slopes t^p over a step of length 1.

    Y_j = mu Y_(j-1) + nu Y_(j-2) + mu' f(c_(j-1)) + gamma' f(0), and c_j is Y_j itself where f = 1.
    """
    width = 6 / ((stages + 4) * (stages - 1))
    before, last = [0.0] * POWERS, [width, 0.0, 0.0, 0.0]
    for j in range(2, stages + 1):
        mu = (2 * j + 1) / j * _scale(j) / _scale(j - 1)
        nu = -(j + 1) / j * _scale(j) / _scale(j - 2)
        inner, first = mu * width, -mu * width * (1 - j * (j + 1) / 2 * _scale(j - 1))
        node = last[0]
        ahead = [mu * last[p] + nu * before[p] + inner * node**p for p in range(POWERS)]
        before, last = last, [ahead[0] + first, *ahead[1:]]
    return tuple(last)


def _scale(j: int) -> float:
    """b_j of RKG2."""
    if j < 2:
        return 1.0 if j == 0 else 1 / 3
    return 4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3))
