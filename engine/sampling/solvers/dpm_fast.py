"""DPM-Solver in tau = -ln(sigma) (Lu 2022, arXiv:2206.00927): a fixed plan of orders 3, 2 and 1, and adaptive steps."""

import math
from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength, ancestral
from sigmagraph.engine.sampling.solvers.parts.dpm_stages import (
    Controller,
    Order,
    Renoise,
    adapted,
    ending,
    grouped,
    orders_of,
)
from sigmagraph.engine.sampling.solvers.recorded import dpm_fast as recorded

SOURCE = "Lu 2022, arXiv:2206.00927"
NEVER_ZERO = "revision 1 stops at the last sigma above 0; revision 2 goes on to 0 with one more evaluation"


def renoise(eta: float, s_noise: float, ctx: Context) -> Renoise:
    """Down as the process splits a step, and back up with the signal rescaled."""

    def lowered(tau: float, tau_next: float, end: float) -> float:
        if eta == 0:
            return tau_next
        down = ancestral(math.exp(-tau), math.exp(-tau_next), eta, ctx).sigma_down
        return -math.log(down) if down > 0 else max(end, tau_next)

    def raised(x: Tensor, target: float, tau_next: float) -> Tensor:
        if eta == 0:
            return x
        sigma_next, down = math.exp(-tau_next), math.exp(-target)
        rescale = ctx.process.alpha(sigma_next) / ctx.process.alpha(down)
        up = math.sqrt(max(sigma_next**2 - (rescale * down) ** 2, 0.0)) * s_noise
        return (x * rescale).add(ctx.draw(), alpha=up) if up > 0 else x * rescale

    return Renoise(lowered, raised)


def onto_zero(x: Tensor, sigmas: Sequence[float]) -> Steps:
    """What is left after the last level above 0, when the schedule ends in 0: its denoised estimate."""
    if sigmas[-1] > 0:
        return x
    denoised: Tensor = yield Evaluate(x, ending(sigmas))
    yield Step(denoised, denoised)
    return denoised


@solver(
    "dpm_fast",
    order=2,
    own_steps=True,
    noise=Noise.SEQUENCE,
    source=SOURCE,
    revision=2,
    remark=NEVER_ZERO,
    older={1: {"function": recorded.dpm_fast}},
)
def dpm_fast(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 0.0, s_noise: Strength = 1.0
) -> Steps:
    """As many evaluations as steps, spent in groups of order 3, evenly in ln(sigma); the last ones of order 2 and 1."""
    start, end = -math.log(sigmas[0]), -math.log(ending(sigmas))
    budget = len(sigmas) - 1 - (1 if sigmas[-1] == 0 else 0)
    x = yield from grouped(x, start, end, orders_of(budget) if end > start else [], renoise(eta, s_noise, ctx))
    return (yield from onto_zero(x, sigmas))


@solver(
    "dpm_adaptive",
    order=3,
    evaluations=3,
    noise=Noise.SEQUENCE,
    is_adaptive=True,
    own_steps=True,
    splits_batch=True,
    older={1: {"function": recorded.dpm_adaptive, "splits_batch": False}},
    source=SOURCE + ", Algorithm 3 (DPM-Solver-12 and -23)",
    revision=2,
    remark=NEVER_ZERO
    + "; step sizes are its own, so it reads one number per try back from the device; revision 1 steps a whole "
    "batch alike",
)
def dpm_adaptive(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    *,
    order: Order = 3,
    rtol: Strength = 0.05,
    atol: Strength = 0.0078,
    h_init: Strength = 0.05,
    pcoeff: Strength = 0.0,
    icoeff: Strength = 1.0,
    dcoeff: Strength = 0.0,
    accept_safety: Strength = 0.81,
    eta: Strength = 0.0,
    s_noise: Strength = 1.0,
) -> Steps:
    """Embedded pair with step size control; only the first and last level of the schedule matter."""
    controller = Controller.of(h_init, order, (pcoeff, icoeff, dcoeff), accept_safety, eta)
    start, end = -math.log(sigmas[0]), -math.log(ending(sigmas))
    x = yield from adapted(x, start, end, order, controller, (rtol, atol), renoise(eta, s_noise, ctx))
    return (yield from onto_zero(x, sigmas))
