"""The quantile function of the beta distribution, in plain floats (NIST DLMF 8.17.22, continued fraction)."""

import math

TINY = 1e-300
CLOSE = 1e-16


def beta_quantile(probability: float, alpha: float, beta: float) -> float:
    """The u with I_u(alpha, beta) = probability: bisection made safe for Newton's steps."""
    if probability <= 0 or probability >= 1:
        return 0.0 if probability <= 0 else 1.0
    if probability > 0.5 or (probability == 0.5 and alpha == beta):
        return 1.0 - beta_quantile(1 - probability, beta, alpha) if probability > 0.5 else 0.5
    low, high, at = 0.0, 1.0, 0.5
    log_scale = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    for _ in range(200):
        error = regularised(at, alpha, beta) - probability
        low, high = (at, high) if error < 0 else (low, at)
        density = math.exp(log_scale + (alpha - 1) * math.log(at) + (beta - 1) * math.log1p(-at))
        step = at - error / density
        new = step if low < step < high else (low + high) / 2
        if abs(new - at) <= CLOSE * max(new, TINY) or new in (low, high):
            return new
        at = new
    return at


def regularised(at: float, alpha: float, beta: float) -> float:
    """The incomplete beta integral I_at(alpha, beta), for 0 < at < 1."""
    log_front = alpha * math.log(at) + beta * math.log1p(-at)
    log_front += math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    if at < (alpha + 1) / (alpha + beta + 2):
        return math.exp(log_front) * _fraction(at, alpha, beta) / alpha
    return 1.0 - math.exp(log_front) * _fraction(1.0 - at, beta, alpha) / beta


def _fraction(at: float, alpha: float, beta: float) -> float:
    """Lentz's evaluation of the continued fraction of the incomplete beta integral."""
    c, d = 1.0, 1.0 / _apart(1.0 - (alpha + beta) * at / (alpha + 1.0))
    value = d
    for m in range(1, 500):
        even = m * (beta - m) * at / ((alpha + 2 * m - 1) * (alpha + 2 * m))
        odd = -(alpha + m) * (alpha + beta + m) * at / ((alpha + 2 * m) * (alpha + 2 * m + 1))
        before = value
        for numerator in (even, odd):
            d = 1.0 / _apart(1.0 + numerator * d)
            c = _apart(1.0 + numerator / c)
            value *= c * d
        if abs(value - before) <= CLOSE * abs(value):
            break
    return value


def _apart(value: float) -> float:
    """Keep a divisor away from 0."""
    return value if abs(value) > TINY else TINY
