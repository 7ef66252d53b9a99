"""Euler's rule on the probability-flow ODE, with optional churn."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

from torch import Tensor

from engine.sampling.solver import Context, Evaluate, Range, Step, Steps, alias, solver

Churn: TypeAlias = Annotated[float, Range(0.0, 100.0)]
Level: TypeAlias = Annotated[float, Range(0.0, math.inf)]


def churned(
    x: Tensor, sigma: float, steps: int, ctx: Context, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Tensor, float]:
    """Raise the noise level a little before a step (Karras 2022, Alg. 2, lines 4-6); draws only where it does."""
    if s_churn <= 0 or not s_tmin <= sigma <= s_tmax:
        return x, sigma
    raised = sigma * (1 + min(s_churn / steps, math.sqrt(2) - 1))
    return x + ctx.churn() * (s_noise * math.sqrt(raised**2 - sigma**2)), raised


@solver("euler", order=1, source="Karras 2022, arXiv:2206.00364, Alg. 2 first order")
def euler(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_churn: Churn = 0.0,
    s_tmin: Level = 0.0,
    s_tmax: Level = math.inf,
    s_noise: Churn = 1.0,
) -> Steps:
    """Explicit Euler on the probability-flow ODE; churn optional."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, ctx, s_churn, s_tmin, s_tmax, s_noise)
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised + (x - denoised) * (sigma_next / sigma)
        yield Step(x, denoised)
    return x


alias("ddim", "euler", source="Song 2020, arXiv:2010.02502, eta 0: the same rule as euler")
