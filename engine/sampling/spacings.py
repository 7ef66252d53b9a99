"""Schedules: (levels, steps) -> sigmas, one function each, registered by name.

Each returns Python floats, decreasing, the last one 0. Values are those of float32 arithmetic where existing images
were made with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.beta_quantile import beta_quantile
from sigmagraph.engine.sampling.levels import ContinuousLevels, DiscreteLevels, Levels
from sigmagraph.engine.sampling.schedules import SCHEDULES, resampled, schedule
from sigmagraph.engine.sampling.solver import Choices, Range

Positive: TypeAlias = Annotated[float, Range(1e-3, 100.0)]
NotNegative: TypeAlias = Annotated[float, Range(0.0, 100.0)]
Rate: TypeAlias = Annotated[float, Range(0.0, 5000.0)]
Number: TypeAlias = Annotated[float, Range(-1000.0, 1000.0)]
NEARLY_ZERO = 1e-5


@dataclass(frozen=True)
class Span(ContinuousLevels):
    """Any two ends, for schedules that look at nothing else of a model."""

    @property
    def sigma_min(self) -> float:
        return self.lowest

    @property
    def sigma_max(self) -> float:
        return self.highest


def ended(sigmas: Tensor | Sequence[float]) -> list[float]:
    """The sigmas as Python floats, with the 0 that ends a run."""
    return [*(sigmas.tolist() if isinstance(sigmas, Tensor) else sigmas), 0.0]


def _normal_shifted_twice(levels: Levels, steps: int) -> list[float]:
    """`normal` as existing graphs have it: on flow the shift is applied to levels that are shifted already."""
    first, last = levels.timestep(levels.sigma_max), levels.timestep(levels.sigma_min)
    scale = levels.timestep_scale
    reaches_zero = float(levels.sigmas_at(torch.tensor(last) / scale)) < NEARLY_ZERO
    sigmas = levels.sigmas_at(torch.linspace(first, last, steps + reaches_zero) / scale)
    return [*sigmas.tolist()[:-1], 0.0] if reaches_zero else ended(sigmas)


def _even_positions(levels: Levels, steps: int) -> Tensor:
    return torch.linspace(levels.position(levels.sigma_max), levels.position(levels.sigma_min), steps)


@schedule(
    "normal",
    source="even timesteps, both ends included",
    revision=2,
    remark="revision 1 shifts a flow model's levels twice, which makes the last step above 0 thirty-fold",
    older={1: {"function": _normal_shifted_twice}},
)
def normal(levels: Levels, steps: int) -> list[float]:
    """Even steps on the coordinate the model was trained on, both ends included; then 0."""
    sigmas = levels.sigmas_at(_even_positions(levels, steps)).tolist()
    return ended([levels.sigma_max, *sigmas[1:]])


def _ddim_from_entry_one(levels: Levels, steps: int) -> list[float]:
    """Entries 1, 1 + r, 1 + 2r ... of the table, r = floor(M / steps), descending; then 0."""
    table = levels.table.tolist()
    appends = table[1] >= NEARLY_ZERO
    picked = table[1 :: max(len(table) // (steps + (not appends)), 1)][::-1]
    return ended(picked) if appends else [*picked[:-1], 0.0]


@schedule("simple", source="every M/N-th trained level, from the top")
def simple(levels: Levels, steps: int) -> list[float]:
    """Evenly spaced entries of the model's own table; then 0."""
    table = levels.table.tolist()
    return ended([table[len(table) - 1 - int(i * (len(table) / steps))] for i in range(steps)])


@schedule("sgm_uniform", source="Stability AI generative-models: even timesteps, the last one left out")
def sgm_uniform(levels: Levels, steps: int) -> list[float]:
    """Even steps in timestep, stopping one short of the last; then 0."""
    first, last = levels.timestep(levels.sigma_max), levels.timestep(levels.sigma_min)
    return ended(levels.sigmas_at(torch.linspace(first, last, steps + 1)[:-1] / levels.timestep_scale))


@schedule("karras", source="Karras 2022, arXiv:2206.00364, eq. 5")
def karras(levels: Levels, steps: int, *, rho: Positive = 7.0) -> list[float]:
    """Even steps in sigma^(1/rho) from the highest trained level to the lowest; then 0."""
    top, bottom = levels.sigma_max ** (1 / rho), levels.sigma_min ** (1 / rho)
    return ended((top + torch.linspace(0, 1, steps) * (bottom - top)) ** rho)


@schedule("exponential", source="k-diffusion (Crowson 2022)")
def exponential(levels: Levels, steps: int) -> list[float]:
    """Even steps in ln(sigma); then 0."""
    return ended(torch.linspace(math.log(levels.sigma_max), math.log(levels.sigma_min), steps).exp())


@schedule(
    "ddim_uniform",
    source="Song 2020, arXiv:2010.02502; trailing spacing of Lin 2023, arXiv:2305.08891",
    revision=2,
    remark="revision 1 starts below the highest level, may give another number of steps, and on flow ends too high",
    older={1: {"function": _ddim_from_entry_one, "exact_length": False}},
)
def ddim_uniform(levels: Levels, steps: int) -> list[float]:
    """Every M/N-th entry of the table, counted from the top: entries round(M - i M/N); then 0."""
    table = levels.table.tolist()
    if steps > len(table):
        return ended(levels.sigmas_at(_even_positions(levels, steps)))
    return ended([table[round(len(table) * (1 - i / steps)) - 1] for i in range(steps)])


@schedule("beta", source="Lee 2024, arXiv:2407.12173", exact_length=False)
def beta(levels: Levels, steps: int, *, alpha: Positive = 0.6, beta: Positive = 0.6) -> list[float]:
    """Table entries at the quantiles of a beta distribution: dense at both ends; repeated entries are dropped."""
    table = levels.table.tolist()
    return _beta_entries(table, steps, alpha, beta)


@schedule("beta57", source="beta with alpha 0.5, beta 0.7 (RES4LYF)", exact_length=False)
def beta57(levels: Levels, steps: int) -> list[float]:
    """The beta schedule with more steps at low levels."""
    return _beta_entries(levels.table.tolist(), steps, 0.5, 0.7)


def _beta_entries(table: Sequence[float], steps: int, alpha: float, beta: float) -> list[float]:
    at = [round(beta_quantile(1 - i / steps, alpha, beta) * (len(table) - 1)) for i in range(steps)]
    return ended([table[index] for place, index in enumerate(at) if place == 0 or index != at[place - 1]])


@schedule("linear_quadratic", source="Movie Gen, arXiv:2410.13720, section 3.4.2; Genmo Mochi")
def linear_quadratic(levels: Levels, steps: int) -> list[float]:
    """Half the steps linear through the first 2.5 % of the way, the rest quadratic."""
    if steps == 1:
        return [levels.sigma_max, 0.0]
    linear = steps // 2
    quadratic, threshold = steps - linear, 0.025
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
    return ended((ramp * math.atan(levels.sigma_min) + (1 - ramp) * math.atan(levels.sigma_max)).tan())


@schedule("polyexponential", source="k-diffusion (Crowson 2022)")
def polyexponential(levels: Levels, steps: int, *, rho: NotNegative = 1.0) -> list[float]:
    """Steps of a power `rho` in ln(sigma): 1 is exponential, more is denser at low levels; then 0."""
    low, high = math.log(levels.sigma_min), math.log(levels.sigma_max)
    return ended((torch.linspace(1, 0, steps) ** rho * (high - low) + low).exp())


def _laplace_levels(levels: Levels, steps: int, mu: float, beta: float) -> list[float]:
    x = torch.linspace(0, 1, steps)
    lam = mu - beta * (0.5 - x).sign() * (1 - 2 * (0.5 - x).abs() + 1e-5).log()
    return lam.exp().clamp(levels.sigma_min, levels.sigma_max).tolist()


def _laplace_without_zero(levels: Levels, steps: int, *, mu: Number = 0.0, beta: NotNegative = 0.5) -> list[float]:
    return _laplace_levels(levels, steps, mu, beta)


@schedule(
    "laplace",
    source="Hang 2024, arXiv:2407.03297",
    revision=2,
    remark="revision 1 does not end in 0",
    older={1: {"function": _laplace_without_zero}},
)
def laplace(levels: Levels, steps: int, *, mu: Number = 0.0, beta: NotNegative = 0.5) -> list[float]:
    """Levels at even quantiles of a Laplace density over ln(sigma), within the trained range; then 0."""
    return ended(_laplace_levels(levels, steps, mu, beta))


@schedule("vp", source="Song 2021, arXiv:2011.13456; Karras 2022 table 1")
def vp(
    levels: Levels,
    steps: int,
    *,
    beta_d: Rate = 19.9,
    beta_min: Rate = 0.1,
    eps_s: Annotated[float, Range(0.0, 1.0)] = 1e-3,
) -> list[float]:
    """Even steps in the time of a VP process with linear beta; its own range of levels; then 0."""
    t = torch.linspace(1, eps_s, steps)
    return ended((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


# Sabour 2024, arXiv:2404.14507: the timesteps its authors give for the optimised ten-step schedules of SD1 and SDXL,
# whose levels the paper's table 3 has rounded, and the levels for Stable Video Diffusion
ALIGNED_TIMESTEPS = {
    "sd1": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
ALIGNED_SVD = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


@schedule("align_your_steps", source="Sabour 2024, arXiv:2404.14507")
def align_your_steps(
    levels: Levels, steps: int, *, table: Annotated[str, Choices(("sd1", "sdxl", "svd"))] = "sdxl"
) -> list[float]:
    """The published optimised levels, spread over any number of steps by lines in ln(sigma); the last becomes 0."""
    known: tuple[float, ...] = ALIGNED_SVD
    if table in ALIGNED_TIMESTEPS:
        trained = DiscreteLevels().table.tolist()
        known = tuple(trained[timestep] for timestep in ALIGNED_TIMESTEPS[table])
    return [*(known if steps + 1 == len(known) else resampled(known, steps))[:-1], 0.0]


@schedule("logit_normal", source="Esser 2024, arXiv:2403.03206, eq. 19: levels as densely as training drew them")
def logit_normal(levels: Levels, steps: int, *, mean: Number = 0.0, std: Positive = 1.0) -> list[float]:
    """Even quantiles of a logit-normal density over the trained coordinate; then 0."""
    first, last = levels.position(levels.sigma_max), levels.position(levels.sigma_min)
    quantiles = [mean + std * NormalDist().inv_cdf(1 - i / steps) for i in range(1, steps)]
    shares = torch.tensor([1 / (1 + math.exp(-z)) for z in quantiles])
    return ended([levels.sigma_max, *levels.sigmas_at(last + (first - last) * shares).tolist()])


@schedule("bong_tangent", source="RES4LYF: two arctangent arcs joined half way")
def bong_tangent(
    levels: Levels,
    steps: int,
    *,
    pivot: Annotated[float, Range(0.0, 1.0)] = 0.6,
    slope: Positive = 0.2,
    middle: Annotated[float, Range(0.0, 1.0)] = 0.5,
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


@schedule("sd_turbo", source="Sauer 2023, arXiv:2311.17042", exact_length=False)
def sd_turbo(levels: Levels, steps: int, *, denoise: Annotated[float, Range(0.0, 1.0)] = 1.0) -> list[float]:
    """The four-step teacher's timesteps 999, 899 ... 99, from entry 10 - floor(10 denoise) on; then 0."""
    table, first = levels.table.tolist(), 10 - int(10 * denoise)
    picked = [table[len(table) * place // 10 - 1] for place in range(10, 0, -1)][first : first + steps]
    if not picked:
        raise BadValue("schedule sd_turbo.denoise", denoise, "at least 0.1")
    return ended(picked)


SCHEDULES.arrange(
    (
        "simple",
        "sgm_uniform",
        "karras",
        "exponential",
        "ddim_uniform",
        "beta",
        "normal",
        "linear_quadratic",
        "kl_optimal",
    )
)
