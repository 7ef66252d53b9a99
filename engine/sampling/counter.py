"""A counter-based generator: noise = f(seed, image, draw, element), equal on CPU and GPU and for every batch size.

Words come from Philox-4x32-10 (Salmon 2011, "Parallel random numbers: as easy as 1, 2, 3"), in integer tensor
operations. Normals come from Wichura's AS 241 (1988) in float64, with a logarithm of our own: only +, -, *, / and
sqrt, which IEEE 754 rounds alike everywhere. Each is one tensor operation, so nothing is contracted.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
PHILOX_M = (0xD2511F53, 0xCD9E8D57)
PHILOX_W = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # ln 2 in two parts (fdlibm)
# AS 241, PPND16: numerator and denominator, highest power first
CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125,
     1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077,
     687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
NEAR = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def counter_normal(
    seed: int, purpose: int, draw: int, images: Sequence[int], shape: Sequence[int], device: torch.device
) -> Tensor:
    """Unit normals [len(images), *shape], float64. `purpose` (below 2^8) keeps the uses of one seed apart.

    `draw` is any number below 2^56: what goes beyond 24 bits stands above the element's own, which takes 32 at most.
    """
    count = math.prod(shape)
    words = torch.arange(2 * -(-count // 4), dtype=torch.int64, device=device)
    counter = torch.stack([words & WORD, (words >> 32) + (draw >> 24)])
    drawn = []
    for image in images:
        key = (seed & WORD, seed >> 32)
        first, second = _uniforms(counter, image & WORD, (draw & 0xFFFFFF) | purpose << 24, key)
        drawn.append(torch.stack([first, second], dim=1).reshape(-1)[:count])
    return normal_quantile(torch.stack(drawn)).reshape(len(images), *shape)


def _uniforms(counter: Tensor, third: int, fourth: int, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two uniforms in (0, 1), float64, per counter: 52 bits each, the middle of their cell."""
    first, second = counter
    words = philox_words(first, second, torch.full_like(first, third), torch.full_like(first, fourth), key)
    a, b = ((high << 20) | (low >> 12) for high, low in (words[:2], words[2:]))
    return (a.double() + 0.5) * 2.0**-52, (b.double() + 0.5) * 2.0**-52


def philox_words(
    a: Tensor, b: Tensor, c: Tensor, d: Tensor, key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10: four 32-bit words (in int64 tensors) scrambled under a key of two."""
    k0, k1 = key
    for _ in range(ROUNDS):
        high_a, low_a = _wide_product(a, PHILOX_M[0])
        high_c, low_c = _wide_product(c, PHILOX_M[1])
        a, b, c, d = high_c ^ b ^ k0, low_c, high_a ^ d ^ k1, low_a
        k0, k1 = (k0 + PHILOX_W[0]) & WORD, (k1 + PHILOX_W[1]) & WORD
    return a, b, c, d


def _wide_product(value: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product of 32-bit numbers, in signed 64-bit arithmetic."""
    low = value * (factor & 0xFFFF)
    high = value * (factor >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def normal_quantile(u: Tensor) -> Tensor:
    """The normal distribution's quantile function, float64, for u in (0, 1) (AS 241, about 1e-16 relative)."""
    q = u - 0.5
    centre = q * _ratio(CENTRE, 0.180625 - q * q)
    r = (-natural_log(torch.minimum(u, 1.0 - u))).sqrt()
    tail = torch.where(r <= 5.0, _ratio(NEAR, r - 1.6), _ratio(FAR, r - 5.0))
    return torch.where(q.abs() <= 0.425, centre, torch.where(q < 0, -tail, tail))


def natural_log(x: Tensor) -> Tensor:
    """Natural logarithm for positive float64: the exponent, and a series in (m - 1) / (m + 1) for a mantissa near 1."""
    mantissa, exponent = torch.frexp(x)
    is_small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(is_small, mantissa * 2.0, mantissa)
    exponent = torch.where(is_small, exponent - 1, exponent).double()
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner([1.0 / (2 * n + 1) for n in range(11, -1, -1)], s * s)
    return exponent * LN2_HIGH + (exponent * LN2_LOW + s * series * 2.0)


def _ratio(coefficients: tuple[Sequence[float], Sequence[float]], at: Tensor) -> Tensor:
    return _horner(coefficients[0], at) / _horner(coefficients[1], at)


def _horner(coefficients: Sequence[float], at: Tensor) -> Tensor:
    total = torch.full_like(at, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * at
        total = total + coefficient
    return total
