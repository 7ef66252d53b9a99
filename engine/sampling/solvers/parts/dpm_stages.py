"""DPM-Solver of orders 1 to 3 in tau = -ln(sigma) (Lu 2022, arXiv:2206.00927), and steps whose size adapts.

e(x, tau) = (x - denoised) / sigma is the noise estimate; h a step in tau.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.solver import Evaluate, Step, Steps

SMALLEST, LARGEST = 1e-300, 300.0  # an inverse error, and the logarithm of a product of powers of some
REJECTED = 1000  # tries in a row after which no step will be accepted any more
STUCK = "settings that let a step be accepted: rtol, atol and h_init above 0, accept_safety at most 1"
Order: TypeAlias = Annotated[int, Interval(2, 3)]
Stage: TypeAlias = Generator[Evaluate, Any, Tensor]


class Renoise(NamedTuple):
    """An ancestral step in tau: `lowered(tau, tau_next, end)` is where it goes, `raised(x, target, tau_next)` back."""

    lowered: Callable[[float, float, float], float]
    raised: Callable[[Tensor, float, float], Tensor]


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


def group(x: Tensor, tau: float, target: float, order: int, e: Tensor) -> Stage:
    """One step of this order, with further evaluations where it needs them."""
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

    @classmethod
    def of(
        cls, h: float, order: int, gains: tuple[float, float, float], accept_safety: float, eta: float
    ) -> "Controller":
        """From proportional, integral and derivative gains; noise makes the error one of order 1.5."""
        proportional, integral, derivative = gains
        scale = order if eta == 0 else 1.5
        total = proportional + integral + derivative
        return cls(h, (total / scale, -(proportional + 2 * derivative) / scale, derivative / scale), accept_safety)

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


def pair(
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


def grouped(x: Tensor, start: float, end: float, orders: Sequence[int], renoise: Renoise) -> Steps:
    """Groups of stages of these orders, evenly in tau."""
    for place, order in enumerate(orders):
        tau, tau_next = (start + (end - start) * at / len(orders) for at in (place, place + 1))
        target = renoise.lowered(tau, tau_next, end)
        denoised: Tensor = yield Evaluate(x, math.exp(-tau))
        x = yield from group(x, tau, target, order, (x - denoised) * math.exp(tau))
        x = renoise.raised(x, target, tau_next)
        yield Step(x, denoised)
    return x


def adapted(
    x: Tensor,
    tau: float,
    end: float,
    order: int,
    controller: Controller,
    tolerance: tuple[float, float],
    renoise: Renoise,
) -> Steps:
    """An embedded pair with step size control, from `tau` to `end`; `tolerance` is relative and absolute."""
    rtol, atol = tolerance
    x_previous, rejected = x, 0
    while tau < end - 1e-5:
        tau_next = min(end, tau + controller.h)
        if not tau_next > tau or rejected == REJECTED:
            reached = f"stuck at sigma {math.exp(-tau):.6g}, step size {controller.h:.6g}"
            raise BadValue("sampler dpm_adaptive", reached, STUCK)
        target = renoise.lowered(tau, tau_next, end)
        denoised: Tensor = yield Evaluate(x, math.exp(-tau))
        low, high = yield from pair(x, tau, target, order, (x - denoised) * math.exp(tau))
        allowed = torch.maximum(low.abs(), x_previous.abs()).mul(rtol).clamp_min(atol)
        error = float(torch.linalg.vector_norm((low - high) / allowed) / math.sqrt(x.numel()))
        if controller.accepts(error):
            x_previous, x = low, renoise.raised(high, target, tau_next)
            tau, rejected = tau_next, 0
            yield Step(x, denoised)
        else:
            rejected += 1
    return x
