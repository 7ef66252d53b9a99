"""Schedules with their settings on the node: each gives a list of noise levels."""

import math
from collections.abc import Sequence
from typing import Annotated

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Range, Tooltip, node
from sigmagraph.engine.sampling import run_sigmas
from sigmagraph.engine.sampling.levels import Span
from sigmagraph.engine.sampling.parameterisation import AT_MAXIMUM
from sigmagraph.engine.sampling.schedules.published_schedules import GITS_COEFFICIENT, OPTIMAL, gits, optimal_steps
from sigmagraph.engine.sampling.schedules.recorded import turbo_timesteps
from sigmagraph.nodes.support.graph_names import schedule_in_graph
from sigmagraph.nodes.support.types import Latent, Model, Sigmas
from sigmagraph.nodes.support.widgets import Fraction, ScheduleName, Steps

__all__ = ["NODES"]

CATEGORY = "sampling/custom_sampling/schedulers"
Level = Annotated[float, Range(0.0, 5000.0, step=0.01, round=False)]
Exponent = Annotated[float, Range(0.0, 100.0, step=0.01, round=False)]
Shape = Annotated[float, Range(0.0, 50.0, step=0.01, round=False)]
SDXL_MAX, SDXL_MIN = 14.614642, 0.0291675
TABLES = {"SD1": "sd1", "SDXL": "sdxl", "SVD": "svd"}


@node("BasicScheduler", category=CATEGORY)
def basic_scheduler(
    *, model: Model, scheduler: ScheduleName = "simple", steps: Steps = 20, denoise: Fraction = 1.0
) -> Sigmas:
    """Any schedule by name, for the levels of this model."""
    schedule = schedule_in_graph(scheduler)
    return tuple(run_sigmas(schedule, model.parameterisation.levels, steps, denoise))


@node("KarrasScheduler", category=CATEGORY)
def karras(
    *, steps: Steps = 20, sigma_max: Level = SDXL_MAX, sigma_min: Level = SDXL_MIN, rho: Exponent = 7.0
) -> Sigmas:
    """Even steps in sigma^(1/rho) (Karras 2022, arXiv:2206.00364, eq. 5)."""
    return _spread("karras", steps, sigma_min, sigma_max, rho=rho)


@node("ExponentialScheduler", category=CATEGORY)
def exponential(*, steps: Steps = 20, sigma_max: Level = SDXL_MAX, sigma_min: Level = SDXL_MIN) -> Sigmas:
    """Even steps in ln(sigma)."""
    return _spread("exponential", steps, sigma_min, sigma_max)


@node("PolyexponentialScheduler", category=CATEGORY)
def polyexponential(
    *, steps: Steps = 20, sigma_max: Level = SDXL_MAX, sigma_min: Level = SDXL_MIN, rho: Exponent = 1.0
) -> Sigmas:
    """Steps of a power in ln(sigma); above 1 it is denser at low levels."""
    return _spread("polyexponential", steps, sigma_min, sigma_max, rho=rho)


@node("LaplaceScheduler", category=CATEGORY)
def laplace(
    *,
    steps: Steps = 20,
    sigma_max: Level = SDXL_MAX,
    sigma_min: Level = SDXL_MIN,
    mu: Annotated[float, Range(-10.0, 10.0, step=0.1, round=False)] = 0.0,
    beta: Annotated[float, Range(0.0, 10.0, step=0.1, round=False)] = 0.5,
) -> Sigmas:
    """Even quantiles of a Laplace density over ln(sigma) (Hang 2024, arXiv:2407.03297); no 0 at the end."""
    return _spread("laplace", steps, sigma_min, sigma_max, mu=mu, beta=beta)


@node("VPScheduler", category=CATEGORY)
def vp(
    *,
    steps: Steps = 20,
    beta_d: Level = 19.9,
    beta_min: Level = 0.1,
    eps_s: Annotated[float, Range(0.0, 1.0, step=0.0001, round=False)] = 0.001,
) -> Sigmas:
    """Even steps in the time of a variance-preserving process (Song 2021, arXiv:2011.13456)."""
    return _spread("vp", steps, SDXL_MIN, SDXL_MAX, beta_d=beta_d, beta_min=beta_min, eps_s=eps_s)


@node("BetaSamplingScheduler", category=CATEGORY)
def beta_sampling(*, model: Model, steps: Steps = 20, alpha: Shape = 0.6, beta: Shape = 0.6) -> Sigmas:
    """The model's levels at the quantiles of a beta distribution (Lee 2024, arXiv:2407.12173)."""
    return tuple(schedule_in_graph("beta")(model.parameterisation.levels, steps, alpha=alpha, beta=beta))


@node("SDTurboScheduler", category=CATEGORY, revision=2)
def sd_turbo(*, model: Model, steps: Annotated[int, Range(1, 10)] = 1, denoise: Fraction = 1.0) -> Sigmas:
    """The levels of the four-step teacher's timesteps 999, 899 ... 99 (Sauer 2023, arXiv:2311.17042)."""
    levels = model.parameterisation.levels
    sigmas = turbo_timesteps(levels, steps, denoise)
    if len(sigmas) < 2:
        raise BadValue("denoise", denoise, "at least 0.1")
    if not sigmas[0] <= levels.sigma_max * (1 + AT_MAXIMUM):
        raise BadValue("model", f"levels up to {levels.sigma_max:g}", "one with a thousand timesteps: SD, SDXL or SD3")
    return tuple(sigmas)


@node("AlignYourStepsScheduler", category=CATEGORY)
def align_your_steps(
    *,
    model_type: Annotated[
        str, Options(list(TABLES), named=True), Tooltip("The model the levels were found for.")
    ] = "SD1",
    steps: Annotated[int, Range(1, 10_000)] = 10,
    denoise: Fraction = 1.0,
) -> Sigmas:
    """Levels found by optimisation, spread over any number of steps (Sabour 2024, arXiv:2404.14507)."""
    levels = Span(SDXL_MIN, SDXL_MAX)  # unused: the table holds the levels
    sigmas = schedule_in_graph("align_your_steps")(levels, steps, table=TABLES[model_type])
    return _last_steps(sigmas, steps, denoise)


@node("GITSScheduler", category=CATEGORY)
def gits_scheduler(
    *,
    coeff: Annotated[float, Range(0.8, 1.5, step=0.05), Tooltip("Levels are known for 1.2 alone.")] = GITS_COEFFICIENT,
    steps: Annotated[int, Range(2, 1000)] = 10,
    denoise: Fraction = 1.0,
) -> Sigmas:
    """Levels found by a search along Stable Diffusion 1.5's paths (Chen 2024, arXiv:2405.11326)."""
    return _last_steps(gits(steps, coeff), steps, denoise)


@node("OptimalStepsScheduler", category=CATEGORY)
def optimal_steps_scheduler(
    *,
    model_type: Annotated[
        str, Options(list(OPTIMAL), named=True), Tooltip("The model the levels were found for.")
    ] = "FLUX",
    steps: Annotated[int, Range(3, 1000)] = 20,
    denoise: Fraction = 1.0,
) -> Sigmas:
    """Levels found by a search for the least change of the result (Pei 2025, arXiv:2503.21774)."""
    return _last_steps(optimal_steps(model_type, steps), steps, denoise)


@node("LTXVScheduler", category=CATEGORY)
def ltxv(
    *,
    steps: Steps = 20,
    max_shift: Annotated[float, Range(0.0, 100.0, step=0.01)] = 2.05,
    base_shift: Annotated[float, Range(0.0, 100.0, step=0.01)] = 0.95,
    stretch: Annotated[bool, Tooltip("Stretch the levels so that the last above 0 is the terminal one.")] = True,
    terminal: Annotated[float, Range(0.0, 0.99, step=0.01)] = 0.1,
    latent: Latent | None = None,
) -> Sigmas:
    """Even steps with a shift that grows with the number of latent places: base at 1024, max at 4096."""
    places = math.prod(latent.samples.shape[2:]) if latent is not None else 4096
    grown = math.exp(base_shift + (max_shift - base_shift) * (places - 1024) / (4096 - 1024))
    even = [1.0 - step / steps for step in range(steps)]
    levels = [grown * u / (grown * u + (1.0 - u)) for u in even]
    if stretch and levels[-1] < 1.0:
        scale = (1.0 - levels[-1]) / (1.0 - terminal)
        levels = [1.0 - (1.0 - level) / scale for level in levels]
    return (*levels, 0.0)


def _last_steps(sigmas: Sequence[float], steps: int, denoise: float) -> tuple[float, ...]:
    """The last share of a schedule of so many steps; none of it where that rounds to no step."""
    kept = round(steps * denoise)
    return tuple(sigmas[-(kept + 1) :]) if kept else ()


def _spread(name: str, steps: int, sigma_min: float, sigma_max: float, **options: float) -> tuple[float, ...]:
    """A schedule between two given levels."""
    if not 0 < sigma_min < sigma_max:
        raise BadValue("sigma_min, sigma_max", (sigma_min, sigma_max), "two levels above 0, the first below the second")
    return tuple(schedule_in_graph(name)(Span(sigma_min, sigma_max), steps, **options))


NODES = (
    basic_scheduler,
    karras,
    exponential,
    polyexponential,
    laplace,
    vp,
    beta_sampling,
    sd_turbo,
    align_your_steps,
    gits_scheduler,
    optimal_steps_scheduler,
    ltxv,
)
