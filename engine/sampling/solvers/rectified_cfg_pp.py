"""Rectified-CFG++ (Saini 2025, arXiv:2510.07631): guidance whose direction is read half a step ahead.

CFG extrapolates where the state is, which leads off the data. Here a half step follows the conditional slope, which
stays on them, and the difference of both sides is taken there:

    d = slope of D at (x, sigma);   y = x + (m - sigma) d,  m half way in sigma;   d', u' = slopes of D', U' at (y, m)
    x' = x + (sigma' - sigma) (d + strength alpha(sigma)^gamma (d' - u'))

D is the guided estimate of the run; the paper's is the conditional one, so run it at guidance scale 1. Then a step
asks for three estimates of the network.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver

__all__ = ["rectified_cfg_pp"]


@solver(
    "rectified_cfg_pp", order=1, evaluations=2, needs_uncond=True, source="Saini 2025, arXiv:2510.07631, Algorithm 1"
)
def rectified_cfg_pp(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    strength: Annotated[float, Interval(0.0, 100.0)] = 2.5,
    gamma: Annotated[float, Interval(0.0, 100.0)] = 0.0,
) -> Steps:
    """Euler's step with guidance from half a step ahead; for guidance scale 1. Where both sides agree it is euler."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        middle, weight = (sigma + sigma_next) / 2, strength * max(ctx.process.alpha(sigma), 0.0) ** gamma
        moved = denoised.lerp(x, sigma_next / sigma)
        if weight != 0:
            guided, uncond = yield Evaluate(denoised.lerp(x, middle / sigma), middle, needs_uncond=True)
            moved = moved + (uncond - guided) * (weight * (sigma_next - sigma) / middle)
        x = moved
        yield Step(x, denoised)
    return x
