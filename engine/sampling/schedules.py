"""Schedules: (levels, steps) -> sigmas, one function each; and the cuts a sampling node makes to them.

Each returns Python floats, decreasing, the last one 0. Values are those of float32 arithmetic where existing images
were made with it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor

from engine.errors import BadValue, UnknownName
from engine.registry import Registry
from engine.sampling.beta_quantile import beta_quantile
from engine.sampling.levels import Levels
from engine.sampling.solver import Option, Range, options_of, revision_of

ScheduleFunction: TypeAlias = Callable[..., list[float]]
Positive: TypeAlias = Annotated[float, Range(1e-3, 50.0)]
NEARLY_ZERO = 1e-5


@dataclass(frozen=True)
class Schedule:
    """One revision of one schedule. Call it with (levels, steps) and its options."""

    name: str
    function: ScheduleFunction
    source: str = ""
    revision: int = 1
    remark: str = ""
    exact_length: bool = True
    older: tuple["Schedule", ...] = field(default=(), repr=False)

    def __call__(self, levels: Levels, steps: int, **options: object) -> list[float]:
        """The sigmas of a run of `steps` steps: steps + 1 values where `exact_length` holds."""
        if steps < 1:
            raise BadValue(f"schedule {self.name}.steps", steps, "1 or more")
        known = {option.name: option for option in self.options}
        for name in options:
            if name not in known:
                raise UnknownName(f"option of schedule {self.name}", name, known)
        place = f"schedule {self.name}"
        return self.function(levels, steps, **{name: known[name].check(place, options[name]) for name in options})

    @property
    def options(self) -> tuple[Option, ...]:
        """The settings its signature offers."""
        return options_of(self.function)

    def at(self, revision: int | None) -> "Schedule":
        """This schedule as it was at `revision`; None means the newest."""
        found = [one for one in (self, *self.older) if revision is None or one.revision == revision]
        if not found:
            raise BadValue(f"schedule {self.name} revision", revision, f"1 to {self.revision}")
        return found[0]


SCHEDULES: Registry[Schedule] = Registry("schedule")


def schedule(
    name: str,
    *,
    registry: Registry[Schedule] = SCHEDULES,
    older: Mapping[int, Mapping[str, Any]] | None = None,
    **declared: Any,
) -> Callable[[ScheduleFunction], ScheduleFunction]:
    """Register a function as the schedule `name`; `older` maps earlier revisions to the fields that differ."""

    def register(function: ScheduleFunction) -> ScheduleFunction:
        newest = Schedule(name, function, **declared)
        past = [replace(newest, revision=number, **fields) for number, fields in sorted((older or {}).items())[::-1]]
        registry.add(name, replace(newest, older=tuple(past)))
        return function

    return register


def find_schedule(name: str, bare_revision: int | None = None, registry: Registry[Schedule] = SCHEDULES) -> Schedule:
    """The schedule a graph names, as `find_solver` finds a sampler."""
    return registry[name.partition("@")[0]].at(revision_of(name, bare_revision))


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


@schedule("ddim_uniform", source="Song 2020, arXiv:2010.02502: every r-th trained level", exact_length=False)
def ddim_uniform(levels: Levels, steps: int) -> list[float]:
    """Entries 1, 1 + r, 1 + 2r ... of the table, r = floor(M / steps), descending; then 0."""
    table = levels.table.tolist()
    appends = table[1] >= NEARLY_ZERO
    picked = table[1 :: max(len(table) // (steps + (not appends)), 1)][::-1]
    return ended(picked) if appends else [*picked[:-1], 0.0]


@schedule("beta", source="Lee 2024, arXiv:2407.12173", exact_length=False)
def beta(levels: Levels, steps: int, *, alpha: Positive = 0.6, beta: Positive = 0.6) -> list[float]:
    """Table entries at the quantiles of a beta distribution: dense at both ends; repeated entries are dropped."""
    table = levels.table.tolist()
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


def _normal_on_the_trained_coordinate(levels: Levels, steps: int) -> list[float]:
    first, last = levels.position(levels.sigma_max), levels.position(levels.sigma_min)
    return ended(levels.sigmas_at(torch.linspace(first, last, steps)))


schedule("normal", source="even timesteps, both ends included", older={})(_normal_shifted_twice)


def run_sigmas(
    chosen: Schedule, levels: Levels, steps: int, denoise: float = 1.0, drops_penultimate: bool = False, **options: Any
) -> list[float]:
    """The sigmas of a sampling node: all of them, or for `denoise` < 1 the last steps + 1 of a longer schedule.

    `drops_penultimate`: make the schedule one step longer and leave out its last value above 0.
    """
    if not 0.0 <= denoise <= 1.0:
        raise BadValue("denoise", denoise, "a number from 0 to 1")
    if denoise == 0:
        return []
    full = steps if denoise > 0.9999 else int(steps / denoise)
    sigmas = chosen(levels, full + drops_penultimate, **options)
    if drops_penultimate:
        sigmas = [*sigmas[:-2], sigmas[-1]]
    return sigmas if denoise > 0.9999 else sigmas[-(steps + 1) :]


def cut(sigmas: Sequence[float], start: int = 0, end: int = 10_000, leftover_noise: bool = False) -> list[float]:
    """The part of a run from step `start` to step `end`; without `leftover_noise` an early end jumps to 0.

    Empty where `start` lies at or behind the end: nothing to do.
    """
    kept = list(sigmas)
    if end < len(kept) - 1:
        kept = kept[: end + 1]
        if not leftover_noise:
            kept[-1] = 0.0
    return kept[start:] if start < len(kept) - 1 else []
