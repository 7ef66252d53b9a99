"""Explicit Runge-Kutta rules on dx/dsigma = (x - D) / sigma, from their tableaux; with steps as scheduled, or adaptive.

The step onto sigma 0, where the slope has no value, is the estimate itself. `add_explicit` makes a sampler of anyone's
tableau, once its order is proven.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.solver import Context, Evaluate, SolverFunction, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.ancestral import Strength
from sigmagraph.engine.sampling.solvers.parts.dpm_stages import REJECTED, STUCK, Controller, Stage, ending
from sigmagraph.engine.sampling.solvers.parts.tableaux import EXPLICIT, Explicit

__all__ = ["add_explicit"]


def along(x: Tensor, slopes: Sequence[Tensor], weights: Sequence[float], width: float) -> Tensor:
    """X + width * sum of weighted slopes."""
    for slope, weight in zip(slopes, weights, strict=True):
        if weight != 0:
            x = x.add(slope, alpha=weight * width)
    return x


def slope_at(x: Tensor, sigma: float) -> Stage:
    """(x - D) / sigma: one evaluation."""
    denoised: Tensor = yield Evaluate(x, sigma)
    return (x - denoised) / sigma


def scheduled(tableau: Explicit) -> SolverFunction:
    """The rule over the schedule's own steps; trailing stages that only an error estimate needs are left out."""
    used = max(place for place, weight in enumerate(tableau.weights) if weight) + 1
    rows = [[float(one) for one in line] for line in tableau.stages[: used - 1]]
    weights = [float(one) for one in tableau.weights[:used]]
    nodes = [float(one) for one in tableau.nodes[1:used]]

    def rule(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
        for sigma, sigma_next in pairwise(sigmas):
            denoised: Tensor = yield Evaluate(x, sigma)
            if sigma_next == 0:
                x = denoised
            else:
                width, slopes = sigma_next - sigma, [(x - denoised) / sigma]
                for node, line in zip(nodes, rows, strict=True):
                    further = yield from slope_at(along(x, slopes, line, width), sigma + node * width)
                    slopes.append(further)
                x = along(x, slopes, weights, width)
            yield Step(x, denoised)
        return x

    rule.__doc__ = f"Explicit Runge-Kutta of order {tableau.order} in sigma, {used} stages."
    return rule


def adaptive(tableau: Explicit) -> SolverFunction:
    """The embedded pair with step size control in -ln(sigma), as dpm_adaptive's newest revision: each image alone."""
    rows = [[float(one) for one in line] for line in tableau.stages]
    away = [float(one - other) for one, other in zip(tableau.weights, tableau.embedded, strict=True)]
    nodes = [float(one) for one in tableau.nodes[1:]]

    def rule(
        x: Tensor,
        sigmas: Sequence[float],
        ctx: Context,
        *,
        rtol: Strength = 0.05,
        atol: Strength = 0.0078,
        h_init: Strength = 0.05,
        accept_safety: Strength = 0.81,
    ) -> Steps:
        controller = Controller.of(h_init, tableau.order, (0.0, 1.0, 0.0), accept_safety, 0.0)
        tau, end, rejected = -math.log(sigmas[0]), -math.log(ending(sigmas)), 0
        denoised: Tensor = yield Evaluate(x, sigmas[0])
        while tau < end - 1e-5:
            tau_next = min(end, tau + controller.h)
            if not tau_next > tau or rejected == REJECTED:
                reached = f"stuck at sigma {math.exp(-tau):.6g}, step size {controller.h:.6g}"
                raise BadValue(f"sampler {tableau.name}_adaptive", reached, STUCK)
            sigma, width = math.exp(-tau), math.exp(-tau_next) - math.exp(-tau)
            slopes, state, ahead = [(x - denoised) / sigma], x, denoised
            for node, line in zip(nodes, rows, strict=True):
                state = along(x, slopes, line, width)  # the last stage is the step itself: its estimate begins the next
                ahead = yield Evaluate(state, sigma + node * width)
                slopes.append((state - ahead) / (sigma + node * width))
            allowed = torch.maximum(x.abs(), state.abs()).mul(rtol).clamp_min(atol)
            wrong = along(torch.zeros_like(x), slopes, away, width)
            rejected += 1
            if controller.accepts(float(torch.linalg.vector_norm(wrong / allowed) / math.sqrt(x.numel()))):
                yield Step(state, denoised)
                x, denoised, tau, rejected = state, ahead, tau_next, 0
        if sigmas[-1] == 0:
            x = denoised
            yield Step(x, denoised)
        return x

    rule.__doc__ = f"Embedded pair of orders {tableau.order} and {tableau.embedded_order} with step size control."
    return rule


def registered(tableau: Explicit) -> None:
    """A sampler of the tableau's name, and one with step control where it has embedded weights."""
    used = max(place for place, weight in enumerate(tableau.weights) if weight) + 1
    solver(tableau.name, order=tableau.order, evaluations=used, inverts=True, source=tableau.source)(scheduled(tableau))
    if tableau.embedded:
        solver(
            f"{tableau.name}_adaptive",
            order=tableau.order,
            evaluations=len(tableau.nodes) - 1,
            is_adaptive=True,
            own_steps=True,
            splits_batch=True,
            source=tableau.source,
        )(adaptive(tableau))


def add_explicit(tableau: Explicit) -> None:
    """Prove a tableau, then make samplers of it; what breaks its order is an error that names the condition.

    Embedded weights belong to pairs whose last stage is the step itself.
    """
    from sigmagraph.engine.sampling.solvers.parts.order_conditions import proven  # its trees are not needed at import

    proven(tableau)
    if tableau.embedded and tableau.stages[-1] != tableau.weights[:-1]:
        raise BadValue(f"tableau {tableau.name}: last stage", "not the step", "the row of weights: first same as last")
    registered(tableau)


for _tableau in EXPLICIT:
    registered(_tableau)
