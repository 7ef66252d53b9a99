"""DPM-Solver of orders 1 to 3 in tau = -ln(sigma) (Lu 2022, arXiv:2206.00927): a fixed plan, and adaptive steps.

e(x, tau) = (x - denoised) / sigma is the noise estimate; h a step in tau.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.options import Range
from sigmagraph.engine.sampling.process import split
from sigmagraph.engine.sampling.solver import Context, Evaluate, Noise, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.euler import Strength, ancestral

SOURCE = "Lu 2022, arXiv:2206.00927"
NEVER_ZERO = "revision 1 stops at the last sigma above 0; revision 2 goes on to 0 with one more evaluation"
SMALLEST, LARGEST = 1e-300, 300.0  # an inverse error, and the logarithm of a product of powers of some
REJECTED = 1000  # tries in a row after which no step will be accepted any more
STUCK = "settings that let a step be accepted: rtol, atol and h_init above 0, accept_safety at most 1"
Stage = Generator[Evaluate, Any, Tensor]


def noise_estimate(x: Tensor, tau: float) -> Stage:
    """e(x, tau): one evaluation."""
    sigma = math.exp(-tau)
    denoised: Tensor = yield Evaluate(x, sigma)
    return (x - denoised) / sigma


def first_order(x: Tensor, tau: float, tau_next: float, e: Tensor) -> Tensor:
    """DPM-Solver-1."""
    return x - e * (math.exp(-tau_next) * math.expm1(tau_next - tau))


def second_order(x: Tensor, tau: float, tau_next: float, e: Tensor, e1: Tensor, r1: float) -> Tensor:
    """DPM-Solver-2, with `e1` at the fraction `r1` of the step."""
    scale = math.exp(-tau_next) * math.expm1(tau_next - tau)
    return x - e * scale - (e1 - e) * (scale / (2 * r1))


def third_order(x: Tensor, tau: float, tau_next: float, e: Tensor, e1: Tensor, r1: float, r2: float) -> Stage:
    """DPM-Solver-3: one more evaluation, at the fraction `r2`."""
    h = tau_next - tau
    tau2 = tau + r2 * h
    bend = math.exp(-tau2) * (r2 / r1) * (math.expm1(r2 * h) / (r2 * h) - 1)
    u2 = first_order(x, tau, tau2, e) - (e1 - e) * bend
    e2 = yield from noise_estimate(u2, tau2)
    return first_order(x, tau, tau_next, e) - (e2 - e) * (math.exp(-tau_next) / r2 * (math.expm1(h) / h - 1))


def orders_of(evaluations: int) -> list[int]:
    """The orders of the groups that spend this many evaluations: threes first."""
    groups = evaluations // 3 + 1
    return [3] * (groups - 2) + [2, 1] if evaluations % 3 == 0 else [3] * (groups - 1) + [evaluations % 3]


def ending(sigmas: Sequence[float]) -> float:
    """Where the solvers in tau have to stop: tau of sigma 0 is infinite."""
    return sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]


def finished(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """What is left after the last level above 0: in revision 2, when the schedule ends in 0, its denoised estimate."""
    if ctx.as_recorded or sigmas[-1] > 0:
        return x
    denoised: Tensor = yield Evaluate(x, ending(sigmas))
    yield Step(denoised, denoised)
    return denoised


def lowered(tau: float, tau_next: float, end: float, eta: float, ctx: Context) -> float:
    """Where an ancestral step goes before noise brings it back to `tau_next`."""
    if eta == 0:
        return tau_next
    if not ctx.as_recorded:
        down = ancestral(math.exp(-tau), math.exp(-tau_next), eta, ctx).sigma_down
        return -math.log(down) if down > 0 else max(end, tau_next)
    down, _ = split(math.exp(-tau), math.exp(-tau_next), eta)
    return min(end, -math.log(down)) if down > 0 else end


def raised(x: Tensor, target: float, tau_next: float, eta: float, s_noise: float, ctx: Context) -> Tensor:
    """The noise that brings a state from `target` back to `tau_next`; revision 1 adds it as if alpha = 1."""
    if eta == 0:
        return x
    if not ctx.as_recorded:
        sigma_next, down = math.exp(-tau_next), math.exp(-target)
        rescale = ctx.process.alpha(sigma_next) / ctx.process.alpha(down)
        up = math.sqrt(max(sigma_next**2 - (rescale * down) ** 2, 0.0)) * s_noise
        return (x * rescale).add(ctx.draw(), alpha=up) if up > 0 else x * rescale
    up = math.sqrt(max(math.exp(-2 * tau_next) - math.exp(-2 * target), 0.0))
    return x + ctx.draw() * (up * s_noise) if up * s_noise > 0 else x


@solver("dpm_fast", order=2, noise=Noise.SEQUENCE, source=SOURCE, revision=2, remark=NEVER_ZERO)
def dpm_fast(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, eta: Strength = 0.0, s_noise: Strength = 1.0
) -> Steps:
    """As many evaluations as steps, spent in groups of order 3, evenly in ln(sigma); the last ones of order 2 and 1."""
    start, end = -math.log(sigmas[0]), -math.log(ending(sigmas))
    budget = len(sigmas) - 1 - (0 if ctx.as_recorded or sigmas[-1] > 0 else 1)
    orders = orders_of(budget) if end > start or ctx.as_recorded else []
    for group, order in enumerate(orders):
        tau, tau_next = (start + (end - start) * place / len(orders) for place in (group, group + 1))
        target = lowered(tau, tau_next, end, eta, ctx)
        denoised: Tensor = yield Evaluate(x, math.exp(-tau))
        e = (x - denoised) * math.exp(tau)
        x = yield from _group(x, tau, target, order, e)
        x = raised(x, target, tau_next, eta, s_noise, ctx)
        yield Step(x, denoised)
    return (yield from finished(x, sigmas, ctx))


def _group(x: Tensor, tau: float, target: float, order: int, e: Tensor) -> Stage:
    if order == 1:
        return first_order(x, tau, target, e)
    r1 = 0.5 if order == 2 else 1 / 3
    inner = tau + r1 * (target - tau)
    e1 = yield from noise_estimate(first_order(x, tau, inner, e), inner)
    if order == 2:
        return second_order(x, tau, target, e, e1, r1)
    return (yield from third_order(x, tau, target, e, e1, r1, 2 / 3))


@dataclass
class Controller:
    """A PID controller of step sizes (Söderlind 2003): `h` grows or shrinks with the history of inverse errors."""

    h: float
    weights: tuple[float, float, float]
    accept_safety: float
    history: tuple[float, ...] = ()

    def accepts(self, error: float) -> bool:
        """Judge a try by its error (1 = at tolerance) and set the next step's size."""
        inverse = max(1.0 / (error + 1e-8), SMALLEST)
        self.history = (inverse, *self.history[1:]) if self.history else (inverse, inverse, inverse)
        pairs = list(zip(self.history, self.weights, strict=True))
        exponent = sum(weight * math.log(value) for value, weight in pairs)
        if abs(exponent) < LARGEST:
            factor = math.prod(value**weight for value, weight in pairs)
        else:
            factor = math.inf if exponent > 0 else 0.0
        factor = 1.0 + math.atan(factor - 1.0)
        accepted = factor >= self.accept_safety
        if accepted:
            self.history = (self.history[0], self.history[0], self.history[1])
        self.h *= factor
        return accepted


@solver(
    "dpm_adaptive",
    order=3,
    evaluations=3,
    noise=Noise.SEQUENCE,
    is_adaptive=True,
    splits_batch=True,
    older={1: {"splits_batch": False}},
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
    order: Annotated[int, Range(2, 3)] = 3,
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
    scale = order if eta == 0 else 1.5
    weights = ((pcoeff + icoeff + dcoeff) / scale, -(pcoeff + 2 * dcoeff) / scale, dcoeff / scale)
    controller = Controller(h_init, weights, accept_safety)
    tau, end, x_previous = -math.log(sigmas[0]), -math.log(ending(sigmas)), x
    rejected = 0
    while tau < end - 1e-5:
        tau_next = min(end, tau + controller.h)
        if not tau_next > tau or rejected == REJECTED:
            reached = f"stuck at sigma {math.exp(-tau):.6g}, step size {controller.h:.6g}"
            raise BadValue("sampler dpm_adaptive", reached, STUCK)
        target = lowered(tau, tau_next, end, eta, ctx)
        denoised: Tensor = yield Evaluate(x, math.exp(-tau))
        e = (x - denoised) * math.exp(tau)
        low, high = yield from _pair(x, tau, target, order, e)
        allowed = torch.maximum(low.abs(), x_previous.abs()).mul(rtol).clamp_min(atol)
        error = float(torch.linalg.vector_norm((low - high) / allowed) / math.sqrt(x.numel()))
        if controller.accepts(error):
            x_previous, x = low, raised(high, target, tau_next, eta, s_noise, ctx)
            tau, rejected = tau_next, 0
            yield Step(x, denoised)
        else:
            rejected += 1
    return (yield from finished(x, sigmas, ctx))


def _pair(
    x: Tensor, tau: float, target: float, order: int, e: Tensor
) -> Generator[Evaluate, Any, tuple[Tensor, Tensor]]:
    """The result of the lower and of the higher order."""
    r1 = 1 / 3 if order == 3 else 0.5
    inner = tau + r1 * (target - tau)
    e1 = yield from noise_estimate(first_order(x, tau, inner, e), inner)
    second = second_order(x, tau, target, e, e1, r1)
    if order == 2:
        return first_order(x, tau, target, e), second
    return second, (yield from third_order(x, tau, target, e, e1, r1, 2 / 3))
