"""The numbers of one UniPC update (Zhao 2023, arXiv:2302.04867), on the variance-preserving form of the state.

a = 1 / sqrt(1 + sigma^2), b = sigma a, lam = -ln(sigma).
"""

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices

Variant: TypeAlias = Annotated[str, Choices(("bh1", "bh2"))]
HIGHEST_ORDER = 3


class Update:
    """The numbers of one update from level i - 1 to level i."""

    def __init__(self, levels: Sequence[float], i: int, order: int, variant: str, is_exact: bool = False) -> None:
        self.order, self._is_exact = order, is_exact
        start, end = levels[i - 1], levels[i]
        lam = -math.log(start)
        self.h = (-math.log(end) if end > 0 else math.inf) - lam
        self.scale, self.scale_last = (1 / math.sqrt(1 + sigma**2) for sigma in (end, start))
        self.ratio = end * self.scale / (start * self.scale_last)
        self.nodes = [(-math.log(levels[i - 1 - j]) - lam) / self.h for j in range(1, order)]
        z = -self.h
        self.b = z if variant == "bh1" else math.expm1(z)
        term, self.right = (math.expm1(z) / z - 1 if math.isfinite(z) else -1.0), []
        for j in range(1, order + 1):
            self.right.append(term * math.factorial(j) / self.b if math.isfinite(z) else 0.0)
            term = term / z - 1 / math.factorial(j + 1)

    def base(self, state: Tensor, estimates: Sequence[Tensor]) -> Tensor:
        """The first-order update."""
        return state * self.ratio - estimates[0] * (self.scale * math.expm1(-self.h))

    def differences(self, estimates: Sequence[Tensor]) -> list[Tensor]:
        """Divided differences of the estimates over the nodes."""
        return [(estimates[j + 1] - estimates[0]) / node for j, node in enumerate(self.nodes)]

    def shifted(self, base: Tensor, pulls: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """The base moved by the weighted differences."""
        for pull, weight in zip(pulls, weights, strict=True):
            base = base - pull * (self.scale * self.b * weight)
        return base

    def predictor(self) -> list[float]:
        """Weights of the past differences; for one of them 1/2, as the paper sets it."""
        if self.order == 2:
            return [0.5]
        return solved(self.nodes, self.right[: self.order - 1])

    def corrector(self) -> list[float]:
        """Weights of the past differences and of the new estimate's; of that alone 1/2, as the paper sets it."""
        return [0.5] if self.order == 1 and not self._is_exact else solved([*self.nodes, 1.0], self.right)


def solved(nodes: Sequence[float], right: Sequence[float]) -> list[float]:
    """Solve sum_l nodes_l^j w_l = right_j, j = 0 ... n - 1 (Vandermonde, n <= 3), by elimination."""
    size = len(nodes)
    rows = [[node**power for node in nodes] + [right[power]] for power in range(size)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(size):
            if row != column:
                factor = rows[row][column] / rows[column][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    return [rows[row][size] / rows[row][row] for row in range(size)]


def vp(x: Tensor, sigma: float) -> Tensor:
    """A state where alpha = 1 in the variance-preserving form."""
    return x / math.sqrt(1 + sigma**2)


def ve(x: Tensor, sigma: float) -> Tensor:
    """And back."""
    return x * math.sqrt(1 + sigma**2)
