"""Gradient estimation (Permenter & Yuan 2023, arXiv:2306.04848): Euler plus a share of the slope's last change."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.cfg_pp import moved
from sigmagraph.engine.sampling.solvers.euler import Strength

SOURCE = "Permenter & Yuan 2023, arXiv:2306.04848"
OVERSHOOT = (
    "revision 1 adds the whole change at gamma 2 and overshoots for small steps; revision 2 adds what order 2 asks"
)


def rule(x: Tensor, sigmas: Sequence[float], ctx: Context, gamma: float, is_cfg_pp: bool) -> Steps:
    """The step both names share; with CFG++ the slope is the unconditional one."""
    last: tuple[float, Tensor] | None = None
    for sigma, sigma_next in pairwise(sigmas):
        if is_cfg_pp:
            denoised, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        else:
            denoised = uncond = yield Evaluate(x, sigma)
        slope, width = (x - uncond) / sigma, sigma_next - sigma
        if sigma_next == 0:
            x = denoised
        else:
            ahead = denoised + slope * sigma_next
            if is_cfg_pp and not ctx.as_recorded:
                ahead = moved(x, sigma, sigma_next, denoised, uncond, ctx)
            if last is not None:
                share = 1.0 if ctx.as_recorded else min(width / (2 * (sigma - last[0])), 1.0)
                ahead = ahead + (slope - last[1]) * ((gamma - 1) * share * width)
            x = ahead
        last = sigma, slope
        yield Step(x, denoised)
    return x


@solver(
    "gradient_estimation", order=2, inverts=True, source=SOURCE, revision=2, remark=OVERSHOOT, older={1: {"order": 1}}
)
def gradient_estimation(x: Tensor, sigmas: Sequence[float], ctx: Context, *, ge_gamma: Strength = 2.0) -> Steps:
    """Euler plus (gamma - 1) times the slope's change."""
    return (yield from rule(x, sigmas, ctx, ge_gamma, False))


@solver(
    "gradient_estimation_cfg_pp",
    order=2,
    needs_uncond=True,
    source=SOURCE + " with CFG++",
    revision=2,
    remark=OVERSHOOT,
    older={1: {"order": 1}},
)
def gradient_estimation_cfg_pp(x: Tensor, sigmas: Sequence[float], ctx: Context, *, ge_gamma: Strength = 2.0) -> Steps:
    """The same along the unconditional direction."""
    return (yield from rule(x, sigmas, ctx, ge_gamma, True))
