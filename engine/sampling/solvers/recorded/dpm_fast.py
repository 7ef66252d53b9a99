"""DPM-Solver in tau as recorded: it stops at the last level above 0, and adds noise as if alpha = 1."""

import math
from collections.abc import Sequence

from torch import Tensor

from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Steps
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.dpm_stages import (
    Controller,
    Order,
    Renoise,
    adapted,
    ending,
    grouped,
    orders_of,
)


def renoise(eta: float, s_noise: float, ctx: Context) -> Renoise:
    """Down as if variances added, and back up with noise alone."""

    def lowered(tau: float, tau_next: float, end: float) -> float:
        if eta == 0:
            return tau_next
        down, _ = split(math.exp(-tau), math.exp(-tau_next), eta)
        return min(end, -math.log(down)) if down > 0 else end

    def raised(x: Tensor, target: float, tau_next: float) -> Tensor:
        if eta == 0:
            return x
        up = math.sqrt(max(math.exp(-2 * tau_next) - math.exp(-2 * target), 0.0))
        return x + ctx.draw() * (up * s_noise) if up * s_noise > 0 else x

    return Renoise(lowered, raised)


def dpm_fast(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 0.0, s_noise: Strength = 1.0
) -> Steps:
    """As many evaluations as steps, evenly in ln(sigma)."""
    start, end = -math.log(sigmas[0]), -math.log(ending(sigmas))
    return (yield from grouped(x, start, end, orders_of(len(sigmas) - 1), renoise(eta, s_noise, ctx)))


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
    """Steps for a whole batch alike."""
    controller = Controller.of(h_init, order, (pcoeff, icoeff, dcoeff), accept_safety, eta)
    start, end = -math.log(sigmas[0]), -math.log(ending(sigmas))
    return (yield from adapted(x, start, end, order, controller, (rtol, atol), renoise(eta, s_noise, ctx)))
