"""Gauss-Legendre nodes and weights on [-1, 1], by Newton's method on the Legendre polynomial (NIST DLMF 3.5.15)."""

import math


def gauss_legendre(count: int) -> tuple[tuple[float, float], ...]:
    """(node, weight) pairs, ascending; exact for polynomials of degree 2 count - 1."""
    pairs = []
    for place in range(count):
        at = -math.cos(math.pi * (place + 0.75) / (count + 0.5))
        slope = 1.0
        for _ in range(100):
            value, slope = _legendre(count, at)
            step = value / slope
            at -= step
            if abs(step) < 1e-16:
                break
        pairs.append((at, 2 / ((1 - at**2) * slope**2)))
    return tuple(pairs)


def _legendre(degree: int, at: float) -> tuple[float, float]:
    """The Legendre polynomial and its derivative, by the three-term recursion."""
    before, value = 0.0, 1.0
    for n in range(degree):
        before, value = value, ((2 * n + 1) * at * value - n * before) / (n + 1)
    return value, degree * (at * value - before) / (at**2 - 1)


NODES_16 = gauss_legendre(16)
