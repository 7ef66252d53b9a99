"""Gradient estimation (Permenter & Yuan 2023, arXiv:2306.04848): Euler plus a share of the slope's last change."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.cfg_pp import moved
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.recorded import gradient_estimation as recorded

SOURCE = "Permenter & Yuan 2023, arXiv:2306.04848"
OVERSHOOT = (
    "revision 1 adds the whole change at gamma 2 and overshoots for small steps; revision 2 adds what order 2 asks"
)


def gradient_share(sigma_last: float, sigma: float, sigma_next: float, gamma: float) -> float:
    """The weight of the slope's last change: at gamma 2 that of a line through both, followed at most once."""
    width = sigma_next - sigma
    return (gamma - 1) * min(width / (2 * (sigma - sigma_last)), 1.0) * width


@solver(
    "gradient_estimation",
    order=2,
    inverts=True,
    source=SOURCE,
    revision=2,
    remark=OVERSHOOT,
    older={1: {"function": recorded.gradient_estimation, "order": 1}},
)
def gradient_estimation(x: Tensor, sigmas: Sequence[float], ctx: Context, *, ge_gamma: Strength = 2.0) -> Steps:
    """Euler plus (gamma - 1) times the slope's change."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        denoised: Tensor = yield Evaluate(x, sigma)
        slope = (x - denoised) / sigma
        x = denoised + slope * sigma_next if sigma_next > 0 else denoised
        if last is not None and sigma_next > 0:
            x = x + (slope - last[1]) * gradient_share(last[0], sigma, sigma_next, ge_gamma)
        last = sigma, slope
        yield Step(x, denoised)
    return x


@solver(
    "gradient_estimation_cfg_pp",
    order=2,
    needs_uncond=True,
    source=SOURCE + " with CFG++",
    revision=2,
    remark=OVERSHOOT,
    older={1: {"function": recorded.gradient_estimation_cfg_pp, "order": 1}},
)
def gradient_estimation_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, *, ge_gamma: Strength = 2.0) -> Steps:
    """The same along the unconditional direction."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        slope = (x - uncond) / sigma
        x = moved(x, sigma, sigma_next, guided, uncond, ctx) if sigma_next > 0 else guided
        if last is not None and sigma_next > 0:
            x = x + (slope - last[1]) * gradient_share(last[0], sigma, sigma_next, ge_gamma)
        last = sigma, slope
        yield Step(x, guided)
    return x
