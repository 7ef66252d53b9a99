"""DEIS as recorded: the polynomial is in the time of one VP process, and its integrals are sums of 10,000 points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps
from sigmagraph.engine.sampling.solvers.parts.multistep import exact, multistep

MaxOrder: TypeAlias = Annotated[int, Interval(1, 4)]
Mode: TypeAlias = Annotated[str, Choices(("default", "tab", "rhoab"))]
EARLIEST, LOWEST, HIGHEST = 1e-3, 0.002, 80.0  # the VP process whose time is used, whatever the model's
POINTS = 10_000


@dataclass(frozen=True)
class VpTime:
    """Sigma as a function of the time of a VP process with linear beta, and back (Karras 2022, table 1)."""

    slope: float
    start: float

    @classmethod
    def between(cls, ctx: Context) -> "VpTime":
        """The process that runs from sigma 0.002 to 80; its constants depend on the precision of a logarithm."""
        low = ctx.rounded(math.log(ctx.rounded(LOWEST**2 + 1)))
        high = math.log(HIGHEST**2 + 1)
        slope = 2 * (low / EARLIEST - high) / (EARLIEST - 1)
        return cls(slope, high - slope / 2)

    def time(self, sigma: float) -> float:
        """The time of a level."""
        return (math.sqrt(self.start**2 + 2 * self.slope * math.log(sigma**2 + 1)) - self.start) / self.slope

    def rate(self, times: Tensor) -> Tensor:
        """The derivative of sigma by time."""
        kept = torch.exp(-0.5 * times**2 * self.slope - times * self.start)
        return 0.5 * (times * self.slope + self.start) / (kept * (1 - kept)).sqrt()


def deis(
    x: Tensor, sigmas: Sequence[float], ctx: Context, *, max_order: MaxOrder = 3, deis_mode: Mode = "default"
) -> Steps:
    """Tab unless rhoab is asked for."""
    return (
        yield from multistep(x, sigmas, max_order, exact) if deis_mode == "rhoab" else tab(x, sigmas, ctx, max_order)
    )


def tab(x: Tensor, sigmas: Sequence[float], ctx: Context, max_order: int) -> Steps:
    """Multistep rule on the slope; the first step and the step onto 0 are Euler's."""
    process = VpTime.between(ctx)
    times = [process.time(sigma) for sigma in sigmas]
    slopes: list[Tensor] = []
    for place, sigma in enumerate(sigmas[:-1]):
        denoised: Tensor = yield Evaluate(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes][:max_order]
        sigma_next = sigmas[place + 1]
        if sigma_next == 0 or place == 0:
            x = denoised + (x - denoised) * (sigma_next / sigma)
        else:
            nodes = [times[place - back] for back in range(len(slopes))]
            for slope, weight in zip(slopes, summed(process, nodes, times[place + 1]), strict=True):
                x = x + slope * weight
        yield Step(x, denoised)
    return x


def summed(process: VpTime, nodes: Sequence[float], end: float) -> list[float]:
    """The weights as sums over 10,000 points of the interval, both ends included."""
    at = torch.linspace(nodes[0], end, POINTS, dtype=torch.float64)
    rate = process.rate(at)
    weights = []
    for which, node in enumerate(nodes):
        basis = torch.ones_like(at)
        for other in (*nodes[:which], *nodes[which + 1 :]):
            basis = basis * ((at - other) / (node - other))
        weights.append(float((rate * basis).sum()) * (end - nodes[0]) / POINTS)
    return weights
