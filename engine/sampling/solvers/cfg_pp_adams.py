"""CFG++ (Chung 2024, arXiv:2406.08070) with a share of Adams-Bashforth 2, as ComfyUI has it since 0.35.

A step e is CFG++'s, its direction u led on by a tenth of its last change. A quarter of it is replaced by h, the line
through the last two slopes e / (sigma' - sigma), integrated.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps, solver
from sigmagraph.engine.sampling.solvers.parts.lagrange import integrals

LED, ADAMS = 0.1, 0.25


class LastDirection(NamedTuple):
    """The step before: level, unconditional direction, slope and guided estimate."""

    sigma: float
    direction: Tensor
    slope: Tensor
    guided: Tensor


@solver(
    "cfgpp_ud10_ab",
    order=0,
    needs_uncond=True,
    source="ComfyUI 0.35: CFG++ Euler, direction led by a tenth, a quarter of Adams-Bashforth 2",
    remark="meant for guidance scales of 1 to 2",
)
def cfgpp_ud10_ab(x: Tensor, sigmas: Sequence[float], ctx: Context) -> Steps:
    """Onto sigma 0 goes the line through the last two guided estimates.

    Leading adds a tenth of all that the direction changes, however small the steps: it converges to no ODE.
    """
    last: LastDirection | None = None
    for sigma, sigma_next in pairwise(sigmas):
        guided, uncond = yield Evaluate(x, sigma, needs_uncond=True)
        width = sigma_next - sigma
        direction = (x - uncond * ctx.process.alpha(sigma)) / sigma
        led = direction
        if last is not None:
            led = direction + (direction - last.direction) * (LED * width / (sigma - last.sigma))
        euler = guided * ctx.process.alpha(sigma_next) + led * sigma_next - x
        slope = euler / width
        if last is None:
            x = x + euler
        elif sigma_next == 0:
            x = guided - (guided - last.guided) * (sigma / (sigma - last.sigma))
        else:
            new, old = integrals([sigma, last.sigma], sigma, sigma_next)
            x = x + euler.lerp(slope * new + last.slope * old, ADAMS)
        last = LastDirection(sigma, direction, slope, guided)
        yield Step(x, guided)
    return x
