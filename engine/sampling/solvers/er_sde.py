"""Extended reverse-time SDE solvers (Cui 2023, arXiv:2309.06169), in Lam = sigma / alpha.

With a noise scaler f, x' / alpha' = f'/f x / alpha + (1 - f'/f) D + terms in D's derivatives by Lam, whose weights are
integrals of 1 / f; the fresh noise has variance Lam'^2 - (Lam f'/f)^2.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.gauss import NODES_16
from sigmagraph.engine.sampling.solvers.parts.near_levels import CURVED, apart
from sigmagraph.engine.sampling.solvers.parts.noise_scaler import Power, Scaler, Stages, noise_scaler, relative
from sigmagraph.engine.sampling.solvers.recorded import er_sde as recorded
from sigmagraph.engine.sampling.solvers.recorded.told import late_start

FURTHEST = 2.0  # a slope is followed at most as far as a doubled step


@solver(
    "er_sde",
    order=3,
    noise=Noise.SEQUENCE,
    source="Cui 2023, arXiv:2309.06169, Alg. 3",
    as_ode={"eta": 0.0, "s_noise": 0.0},
    revision=3,
    fixed={"furthest": FURTHEST},
    remark="revision 1 starts at percent 1e-4 where no signal is left, sums 200 points and takes a backward difference "
    "for the slope (order 2 at most); revision 2 takes the limit, integrates, corrects the slope, and takes levels "
    "that are equal to six digits for one; revision 3 has no slope in a step more than twice the one before",
    told=apart,
    older={
        2: {"fixed": {"furthest": math.inf}},
        1: {"function": recorded.er_sde, "told": late_start, "order": 1, "fixed": {}},
    },
)
def er_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    max_stage: Stages = 3,
    noise_scaler_power: Power = None,
    furthest: Annotated[float, Interval(1.0, math.inf)] = FURTHEST,
) -> Steps:
    """A Taylor expansion of the estimate in Lam, up to its second derivative from past steps."""
    f = noise_scaler(noise_scaler_power, eta)
    past: list[tuple[float, Tensor]] = []
    slope_last: Tensor | None = None
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        lam = relative(sigma, ctx)
        if sigma_next == 0:
            x = denoised
        else:
            alpha, below = ctx.process.alpha(sigma_next), relative(sigma_next, ctx)
            kept, carried, spread = first_order(f, sigma, sigma_next, ctx, is_ode=noise_scaler_power == 1.0 or eta == 0)
            x = x * carried + denoised * (alpha * (1 - kept))
            slope = (denoised - past[0][1]) / (lam - past[0][0]) if past and max_stage >= 2 else None
            stages = stages_within([below, lam, *(one for one, _ in past)], furthest)
            if slope is not None and stages >= 2:
                linear, square = slope_weights(f, lam, below)
                if slope_last is not None and min(stages, max_stage) >= 3:
                    square += linear * (lam - past[0][0]) / 2  # a backward difference is the slope half a step back
                    x = x + (slope - slope_last) * (2 * alpha * square / (lam - past[1][0]))
                x = x + slope * (alpha * linear)
            slope_last = slope
            x = x + ctx.draw() * (alpha * s_noise * spread) if s_noise * spread > 0 else x
        past = [(lam, denoised), *past[:1]]
        yield Step(x, denoised)
    return x


def stages_within(lams: Sequence[float], furthest: float) -> int:
    """Derivatives and one that past estimates tell of in the step from `lams[1]` to `lams[0]`; older ones follow.

    None in a step `furthest` times as long as the one before, in ln(Lam).
    """
    step, *past = (math.log(high / low) for low, high in pairwise(lams))
    if not past or step > furthest * past[0] * (1 + 1e-9):
        return 1
    return 2 if len(past) < 2 or (math.isfinite(furthest) and step > CURVED * past[1]) else 3


def first_order(f: Scaler, sigma: float, sigma_next: float, ctx: Context, is_ode: bool) -> tuple[float, float, float]:
    """f'/f, the share of the state that is carried on, and the spread of fresh noise; from no signal their limits."""
    lam, below, alpha = relative(sigma, ctx), relative(sigma_next, ctx), ctx.process.alpha(sigma_next)
    if math.isinf(lam):
        return (0.0, sigma_next / sigma, 0.0) if is_ode else (0.0, 0.0, below)
    kept = f(below) / f(lam)
    return kept, alpha / ctx.process.alpha(sigma) * kept, math.sqrt(max(below**2 - (lam * kept) ** 2, 0.0))


def slope_weights(f: Callable[[float], float], lam: float, below: float) -> tuple[float, float]:
    """The weights of the first and second derivative: f' integral over [below, lam] of 1 / f, and of (u - lam) / f."""
    low, high = math.log(below), math.log(lam)
    points = [(math.exp((low + high) / 2 + (high - low) / 2 * node), weight) for node, weight in NODES_16]
    shares = [(u, weight * (high - low) / 2 * u / f(u)) for u, weight in points]
    first, second = sum(share for _, share in shares), sum((u - lam) * share for u, share in shares)
    return below - lam + first * f(below), (below - lam) ** 2 / 2 + second * f(below)
