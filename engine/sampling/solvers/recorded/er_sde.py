"""ER-SDE as recorded: integrals are sums of 200 points, and a backward difference stands for the slope."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.noise_scaler import Power, Scaler, Stages, noise_scaler, relative

POINTS = 200


def er_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    eta: Strength = 1.0,
    s_noise: Strength = 1.0,
    max_stage: Stages = 3,
    noise_scaler_power: Power = None,
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
            kept = f(below) / f(lam)
            x = x * (alpha / ctx.process.alpha(sigma) * kept) + denoised * (alpha * (1 - kept))
            slope = (denoised - past[0][1]) / (lam - past[0][0]) if past and max_stage >= 2 else None
            if slope is not None:
                linear, square = slope_weights(f, lam, below)
                if slope_last is not None and len(past) > 1 and max_stage >= 3:
                    x = x + (slope - slope_last) * (2 * alpha * square / (lam - past[1][0]))
                x = x + slope * (alpha * linear)
            slope_last = slope
            spread = math.sqrt(max(below**2 - (lam * kept) ** 2, 0.0))
            x = x + ctx.draw() * (alpha * s_noise * spread) if s_noise * spread > 0 else x
        past = [(lam, denoised), *past[:1]]
        yield Step(x, denoised)
    return x


def slope_weights(f: Scaler, lam: float, below: float) -> tuple[float, float]:
    """The weights of the first and second derivative, by sums of equally spaced points."""
    width = (lam - below) / POINTS
    inverses = [(u, width / f(u)) for u in (below + place * width for place in range(POINTS))]
    first, second = sum(share for _, share in inverses), sum((u - lam) * share for u, share in inverses)
    return below - lam + first * f(below), (below - lam) ** 2 / 2 + second * f(below)
