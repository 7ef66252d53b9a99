"""Restart sampling (Xu 2023, arXiv:2306.14878): solve down, go back up with fresh noise, solve down again."""

import math
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Noise, Steps, solver
from sigmagraph.engine.sampling.solvers.heun import heun

Percent = Annotated[float, Interval(0.0, 1.0)]


@solver(
    "restart",
    order=2,
    evaluations=2,
    own_steps=True,
    noise=Noise.SEQUENCE,
    source="Xu 2023, arXiv:2306.14878, Alg. 1",
    as_ode={"times": 0},
    remark="the interval's levels are run through 1 + `times` times",
)
def restart(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    times: Annotated[int, Interval(0, 100)] = 1,
    from_percent: Percent = 0.4,
    to_percent: Percent = 0.7,
) -> Steps:
    """Heun's rule; on reaching `to_percent` of the way, noise back to `from_percent` and solve that part again."""
    high, low = ctx.levels.percent_to_sigma(from_percent), ctx.levels.percent_to_sigma(to_percent)
    inside = [sigma for sigma in sigmas if high >= sigma >= low and 0 < sigma < sigmas[0]]
    x = yield from heun(x, [sigma for sigma in sigmas if not inside or sigma >= inside[-1]], ctx)
    if inside:
        for _ in range(times if len(inside) > 1 else 0):
            x = _noised_back(x, inside[-1], inside[0], ctx)
            x = yield from heun(x, inside, ctx)
        x = yield from heun(x, [sigma for sigma in sigmas if sigma <= inside[-1]], ctx)
    return x


def _noised_back(x: Tensor, low: float, high: float, ctx: Context) -> Tensor:
    """Forward process from `low` to `high`: the signal is scaled, the missing variance added."""
    scale = ctx.process.alpha(high) / ctx.process.alpha(low)
    return x * scale + ctx.draw() * math.sqrt(max(high**2 - (scale * low) ** 2, 0.0))
