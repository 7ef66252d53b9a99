"""UniPC (Zhao 2023, arXiv:2302.04867): one unified predictor-corrector of any order, here up to 3.

It works on the variance-preserving form of the state: a = 1 / sqrt(1 + sigma^2), b = sigma a, lam = -ln(sigma).
"""

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Choices
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, alias, solver
from sigmagraph.engine.sampling.solvers.dpm import DROPPED
from sigmagraph.engine.sampling.solvers.dpmpp import FURTHEST

INSTEAD_OF_ZERO = 0.001
HIGHEST_ORDER = 3


@solver(
    "uni_pc",
    order=3,
    inverts=True,
    source="Zhao 2023, arXiv:2302.04867, Alg. 1, B1(h) = h",
    revision=2,
    remark=DROPPED + "; revision 1 stops at sigma 0.001 (and does nothing in a single step), revision 2 reaches 0, "
    "and is of first order in a step more than twice the one before",
    older={1: {"drops_penultimate": True, "order": 2}},
)
def uni_pc(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, variant: Annotated[str, Choices(("bh1", "bh2"))] = "bh1"
) -> Steps:
    """Each step: predict from past estimates, evaluate, correct with the new estimate, which is kept."""
    levels, steps = list(sigmas), len(sigmas) - 1
    stops_short = ctx.as_recorded and levels[-1] == 0
    if stops_short:
        levels[-1] = INSTEAD_OF_ZERO
    highest = min(HIGHEST_ORDER, steps - 1 if ctx.as_recorded else max(steps - 1, 1))
    steers = not ctx.as_recorded and levels[-1] > 0  # only the way into sigma 0 asks for a lower order
    state = x / math.sqrt(1 + levels[0] ** 2)
    estimates: list[Tensor] = [(yield Evaluate(x, levels[0]))]
    for i in range(1, steps + 1 if highest > 0 else 1):
        order = i if i < highest else highest if steers else min(highest, steps + 1 - i)
        update = Update(levels, i, order, variant)
        if not ctx.as_recorded and update.is_far():
            update = Update(levels, i, 1, variant, is_exact=True)
        carried, pulls = update.base(state, estimates), update.differences(estimates)
        denoised = estimates[0]
        if i < steps:
            predicted = update.shifted(carried, pulls, update.predictor())
            fresh: Tensor = yield Evaluate(predicted * math.sqrt(1 + levels[i] ** 2), levels[i])
            state = update.shifted(carried, [*pulls, fresh - estimates[0]], update.corrector())
            estimates = [fresh, *estimates][:HIGHEST_ORDER]
        else:
            state = update.shifted(carried, pulls, update.predictor())
        yield Step(state * math.sqrt(1 + levels[i] ** 2), denoised)
    x = state * math.sqrt(1 + levels[-1] ** 2)
    return x / ctx.process.alpha(INSTEAD_OF_ZERO) if stops_short else x


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

    def is_far(self) -> bool:
        """Whether the step is more than twice the last one, so that past estimates say nothing about its end."""
        return self.order > 1 and math.isfinite(self.h) and -self.nodes[0] * 2 * FURTHEST * (1 + 1e-9) < 1

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


alias("uni_pc_bh2", "uni_pc", fixed={"variant": "bh2"}, source="Zhao 2023, arXiv:2302.04867, Alg. 1, B2(h) = e^h - 1")
