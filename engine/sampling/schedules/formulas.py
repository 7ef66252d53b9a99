"""Schedules in closed form over the trained range of sigma.

Values are those of float32 arithmetic where existing images were made with it.
"""

import math
from typing import Annotated, TypeAlias

import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.schedule import schedule, with_zero
from sigmagraph.engine.sampling.schedules import recorded

Positive: TypeAlias = Annotated[float, Interval(1e-3, 100.0)]
NotNegative: TypeAlias = Annotated[float, Interval(0.0, 100.0)]
Rate: TypeAlias = Annotated[float, Interval(0.0, 5000.0)]
Number: TypeAlias = Annotated[float, Interval(-1000.0, 1000.0)]


@schedule("karras", source="Karras 2022, arXiv:2206.00364, eq. 5")
def karras(levels: Levels, steps: int, *, rho: Positive = 7.0) -> list[float]:
    """Even steps in sigma^(1/rho) from the highest trained level to the lowest; then 0."""
    top, bottom = levels.sigma_max ** (1 / rho), levels.sigma_min ** (1 / rho)
    return with_zero((top + torch.linspace(0, 1, steps) * (bottom - top)) ** rho)


@schedule("exponential", source="k-diffusion (Crowson 2022)")
def exponential(levels: Levels, steps: int) -> list[float]:
    """Even steps in ln(sigma); then 0."""
    return with_zero(torch.linspace(math.log(levels.sigma_max), math.log(levels.sigma_min), steps).exp())


@schedule("linear_quadratic", source="Movie Gen, arXiv:2410.13720, section 3.4.2; Genmo Mochi")
def linear_quadratic(levels: Levels, steps: int) -> list[float]:
    """Half the steps linear through the first 2.5 % of the way, the rest quadratic."""
    return linear_then_quadratic(levels, steps, steps // 2, 0.025)


def linear_then_quadratic(levels: Levels, steps: int, linear: int, threshold: float) -> list[float]:
    """So many steps linear through the first `threshold` of the way, the rest quadratic; both meet with one slope."""
    if steps == 1:
        return [levels.sigma_max, 0.0]
    if not 1 <= linear < steps:
        raise BadValue("linear_steps", linear, f"1 to {steps - 1} of {steps} steps")
    quadratic = steps - linear
    rest = linear - threshold * steps
    curve = rest / (linear * quadratic**2)
    tilt = threshold / linear - 2 * rest / quadratic**2
    ramp = [i * threshold / linear for i in range(linear)]
    bend = [curve * i**2 + tilt * i + curve * linear**2 for i in range(linear, steps)]
    return (torch.tensor([1.0 - y for y in (*ramp, *bend, 1.0)]) * levels.sigma_max).tolist()


@schedule("kl_optimal", source="Sabour 2024, arXiv:2404.14507, closed form")
def kl_optimal(levels: Levels, steps: int) -> list[float]:
    """Even steps in atan(sigma), which minimise a KL bound for Gaussian data; then 0."""
    if steps == 1:
        return [levels.sigma_max, 0.0]
    ramp = torch.arange(steps, dtype=torch.float32) / (steps - 1)
    return with_zero((ramp * math.atan(levels.sigma_min) + (1 - ramp) * math.atan(levels.sigma_max)).tan())


@schedule("polyexponential", source="k-diffusion (Crowson 2022)")
def polyexponential(levels: Levels, steps: int, *, rho: NotNegative = 1.0) -> list[float]:
    """Steps of a power `rho` in ln(sigma): 1 is exponential, more is denser at low levels; then 0."""
    low, high = math.log(levels.sigma_min), math.log(levels.sigma_max)
    return with_zero((torch.linspace(1, 0, steps) ** rho * (high - low) + low).exp())


@schedule(
    "laplace",
    source="Hang 2024, arXiv:2407.03297",
    revision=2,
    remark="revision 1 does not end in 0",
    older={1: {"function": recorded.laplace_without_zero, "exact_length": False}},
)
def laplace(levels: Levels, steps: int, *, mu: Number = 0.0, beta: NotNegative = 0.5) -> list[float]:
    """Levels at even quantiles of a Laplace density over ln(sigma), within the trained range; then 0."""
    return with_zero(recorded.laplace_without_zero(levels, steps, mu=mu, beta=beta))


@schedule("vp", source="Song 2021, arXiv:2011.13456; Karras 2022 table 1")
def vp(
    levels: Levels,
    steps: int,
    *,
    beta_d: Rate = 19.9,
    beta_min: Rate = 0.1,
    eps_s: Annotated[float, Interval(0.0, 1.0)] = 1e-3,
) -> list[float]:
    """Even steps in the time of a VP process with linear beta; its own range of levels; then 0."""
    t = torch.linspace(1, eps_s, steps)
    return with_zero((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


@schedule("bong_tangent", source="RES4LYF: two arctangent arcs joined half way")
def bong_tangent(
    levels: Levels,
    steps: int,
    *,
    pivot: Annotated[float, Interval(0.0, 1.0)] = 0.6,
    slope: Positive = 0.2,
    middle: Annotated[float, Interval(0.0, 1.0)] = 0.5,
) -> list[float]:
    """From the top to `middle` along one arc and on to 0 along another, both steepest about `pivot`."""
    if steps == 1:
        return [levels.sigma_max, 0.0]
    count = steps + 2
    joint, steepness = int(count * pivot), slope * 40 / count
    upper = _arc(max(joint, 2), steepness, joint, 1.0, middle)
    lower = _arc(max(count - joint, 2), steepness, joint - max(joint, 2), middle, 0.0)
    sigmas = [level * levels.sigma_max for level in (*upper[:-1], *lower)]
    return [*sigmas[:steps], 0.0]


def _arc(count: int, slope: float, pivot: float, start: float, end: float) -> list[float]:
    """`count` values of an arctangent from `start` to `end`."""
    raw = [math.atan(-slope * (x - pivot)) for x in range(count)]
    return [end + (start - end) * (value - raw[-1]) / (raw[0] - raw[-1]) for value in raw]
