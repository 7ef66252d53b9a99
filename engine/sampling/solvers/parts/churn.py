"""Churn: a little fresh noise before a step (Karras 2022, arXiv:2206.00364, Alg. 2, lines 4-6)."""

import math
from typing import Annotated, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context

Level: TypeAlias = Annotated[float, Interval(0.0, math.inf)]


def churned(
    x: Tensor, sigma: float, steps: int, ctx: Context, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Tensor, float]:
    """State and level with the noise raised; draws only where it does."""
    if s_churn <= 0 or not s_tmin <= sigma <= s_tmax:
        return x, sigma
    raised = sigma * (1 + min(s_churn / steps, math.sqrt(2) - 1))
    if ctx.process.alpha(raised) == ctx.process.alpha(sigma):
        return x + ctx.churn() * (s_noise * math.sqrt(raised**2 - sigma**2)), raised
    raised = min(raised, (1 + sigma) / 2)  # where the signal fades as noise grows, it is scaled down with it
    fade = ctx.process.alpha(raised) / ctx.process.alpha(sigma) if sigma < 1 else 1.0
    return x * fade + ctx.churn() * (s_noise * math.sqrt(max(raised**2 - (fade * sigma) ** 2, 0.0))), raised
