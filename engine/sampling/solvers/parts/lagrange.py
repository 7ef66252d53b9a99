"""Exact integrals of Lagrange polynomials, plain and against an exponential: the weights of multistep rules."""

import math
from collections.abc import Sequence


def basis(nodes: Sequence[float], which: int) -> list[float]:
    """Coefficients, lowest power first, of the polynomial that is 1 at node `which` and 0 at the others."""
    coefficients = [1.0]
    for place, node in enumerate(nodes):
        if place != which:
            shifted, scaled = [0.0, *coefficients], [*[-node * c for c in coefficients], 0.0]
            width = nodes[which] - node
            coefficients = [(a + b) / width for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def integrals(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integral from `start` to `end` of each node's basis polynomial; measured from `start` for precision."""
    width = end - start
    local = [node - start for node in nodes]
    return [
        sum(c * width ** (power + 1) / (power + 1) for power, c in enumerate(basis(local, which)))
        for which in range(len(nodes))
    ]


def exponential_integrals(nodes: Sequence[float], start: float, end: float, rate: float) -> list[float]:
    """Integral from `start` to `end` of rate e^(rate (u - end)) times each node's basis polynomial in u."""
    local, low = [node - end for node in nodes], start - end
    moments = exponential_moments(low, rate, len(nodes))
    return [
        sum(c * moment for c, moment in zip(basis(local, which), moments, strict=True)) for which in range(len(nodes))
    ]


def exponential_moments(low: float, rate: float, count: int) -> list[float]:
    """Integral from `low` (negative, may be -inf) to 0 of rate e^(rate u) u^p, for p below `count`.

    By the recursion of partial integration; for short intervals by the power series, where the recursion cancels.
    """
    reach = rate * low
    if reach > -4.0:
        return [
            -sum(rate**j * low ** (p + j + 1) * rate / (math.factorial(j) * (p + j + 1)) for j in range(48))
            for p in range(count)
        ]
    edge = math.exp(reach)
    moments = [1.0 - edge]
    for p in range(1, count):
        at_low = low**p * edge if edge > 0 else 0.0
        moments.append(-at_low - p / rate * moments[-1])
    return moments
