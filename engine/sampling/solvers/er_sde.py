"""Extended reverse-time SDE solvers (Cui 2023, arXiv:2309.06169), in Lam = sigma / alpha."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.options import Range
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.euler import Strength
from sigmagraph.engine.sampling.solvers.gauss import NODES_16
from sigmagraph.engine.sampling.solvers.log_snr import started

POINTS = 200
LARGEST = 600.0  # of a logarithm, so that a level's power and its inverse are numbers


def noise_scaler(power: float | None) -> Callable[[float], float]:
    """f: how strongly noise of a level is replaced. The paper's ER-SDE 5, or a plain power (1 is the ODE)."""
    if power is None:
        return lambda lam: lam * (math.exp(lam**0.3) + 10.0) if lam < 1e8 else math.inf
    return lambda lam: to_the(lam, power) if math.isfinite(lam) else math.inf


def to_the(lam: float, power: float) -> float:
    """lam^power; refused where it is no number above 0 any more."""
    if abs(power * math.log(lam)) > LARGEST:
        raise BadValue(
            "sampler er_sde.noise_scaler_power", power, f"a power whose values are numbers, also of {lam:.3g}"
        )
    return float(lam**power)


@solver(
    "er_sde",
    order=3,
    noise=Noise.SEQUENCE,
    source="Cui 2023, arXiv:2309.06169, Alg. 3",
    as_ode={"noise_scaler_power": 1.0, "s_noise": 0.0},
    revision=2,
    remark="revision 1 starts at percent 1e-4 where no signal is left, sums 200 points and takes a backward difference "
    "for the slope (order 2 at most); revision 2 takes the limit, integrates, and corrects the slope",
    older={1: {"order": 1}},
)
def er_sde(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    s_noise: Strength = 1.0,
    max_stage: Annotated[int, Range(1, 3)] = 3,
    noise_scaler_power: Annotated[float | None, Range(0.0, 101.0)] = None,
) -> Steps:
    """A Taylor expansion of the estimate in Lam, up to its second derivative from past steps."""
    f = noise_scaler(noise_scaler_power)
    past: list[tuple[float, Tensor]] = []
    slope_last: Tensor | None = None
    for sigma, sigma_next in pairwise(started(sigmas, ctx)):
        denoised: Tensor = yield Evaluate(x, sigma)
        lam = _relative(sigma, ctx)
        if sigma_next == 0:
            x = denoised
        else:
            alpha, below = ctx.process.alpha(sigma_next), _relative(sigma_next, ctx)
            kept = f(below) / f(lam) if math.isfinite(lam) else 0.0
            carried = alpha / ctx.process.alpha(sigma) * kept if math.isfinite(lam) else 0.0
            if math.isinf(lam) and noise_scaler_power == 1.0:
                carried = sigma_next / sigma
            x = x * carried + denoised * (alpha * (1 - kept))
            slope = (denoised - past[0][1]) / (lam - past[0][0]) if past and max_stage >= 2 else None
            if slope is not None:
                first, second = moments(f, lam, below, ctx)
                linear, square = below - lam + first * f(below), (below - lam) ** 2 / 2 + second * f(below)
                if slope_last is not None and len(past) > 1 and max_stage >= 3:
                    if not ctx.as_recorded:  # a backward difference is the slope half a step back, not here
                        square += linear * (lam - past[0][0]) / 2
                    x = x + (slope - slope_last) * (2 * alpha * square / (lam - past[1][0]))
                x = x + slope * (alpha * linear)
            slope_last = slope
            spread = math.sqrt(max(below**2 - (lam * kept) ** 2, 0.0)) if math.isfinite(lam) else below
            if math.isinf(lam) and noise_scaler_power == 1.0:
                spread = 0.0
            x = x + ctx.draw() * (alpha * s_noise * spread) if s_noise * spread > 0 else x
        past = [(lam, denoised), *past[:1]]
        yield Step(x, denoised)
    return x


def _relative(sigma: float, ctx: Context) -> float:
    """Lam = sigma / alpha, infinite where no signal is left."""
    alpha = ctx.process.alpha(sigma)
    return sigma / alpha if alpha > 0 else math.inf


def moments(f: Callable[[float], float], lam: float, below: float, ctx: Context) -> tuple[float, float]:
    """Integrals over [below, lam] of 1 / f and of (u - lam) / f."""
    if not ctx.as_recorded:
        low, high = math.log(below), math.log(lam)
        points = [(math.exp((low + high) / 2 + (high - low) / 2 * node), weight) for node, weight in NODES_16]
        shares = [(u, weight * (high - low) / 2 * u / f(u)) for u, weight in points]
        return sum(share for _, share in shares), sum((u - lam) * share for u, share in shares)
    width = (lam - below) / POINTS
    inverses = [(u, width / f(u)) for u in (below + place * width for place in range(POINTS))]
    return sum(share for _, share in inverses), sum((u - lam) * share for u, share in inverses)
