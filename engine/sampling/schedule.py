"""What a schedule declares, and what a sampling node does to one: truncation for denoise < 1, start and end steps.

The schedules themselves are in `schedules/`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar, TypeAlias, TypeGuard

from torch import Tensor

from sigmagraph.engine.errors import BadSchedule, BadValue, UnknownName
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling.caller_values import declared_record
from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.options import Option, is_number, options_of, positional_unlike
from sigmagraph.engine.sampling.versioned import Revision, Versioned, checked_name, find

ScheduleFunction: TypeAlias = Callable[..., list[float]]
LEVELS = "a list of steps + 1 numbers: the levels from the highest down, finite, none negative"


@dataclass(frozen=True)
class Schedule(Versioned):
    """One revision of one schedule. Call it with (levels, steps) and its options."""

    kind: ClassVar[str] = "schedule"
    name: str
    function: ScheduleFunction
    source: str = ""
    revision: Revision = 1
    remark: str = ""
    exact_length: bool = True
    older: tuple["Schedule", ...] = field(default=(), repr=False)

    def __call__(self, levels: Levels, steps: int, **options: object) -> list[float]:
        """The sigmas of a run of `steps` steps: steps + 1 values where `exact_length` holds."""
        check_steps(f"schedule {self.name}.steps", steps, MOST_STEPS + 1)
        known = {option.name: option for option in self.options}
        for name in options:
            if name not in known:
                raise UnknownName(f"option of schedule {self.name}", name, known)
        place = f"schedule {self.name}"
        checked = {name: known[name].check(place, value) for name, value in options.items()}
        try:
            sigmas = self._numbers(self.function(levels, steps, **checked))
        except OverflowError:
            sigmas = [math.inf]
        if (wrong := _first_wrong(sigmas)) is not None and checked:
            given = ", ".join(f"{name} {value}" for name, value in checked.items())
            raise BadValue(place, given, "settings that give finite levels, none above the one before it")
        if wrong is not None:
            raise BadSchedule(self.name, f"returned {sigmas[wrong]:g} at place {wrong}", LEVELS)
        if levels.sigma_max <= 1.0 < max(sigmas) and max(sigmas) > levels.sigma_max * (1 + 1e-5):
            raise BadValue(
                place, max(sigmas), f"levels of a flow model, at most {levels.sigma_max:g}: it is not made for one"
            )
        if self.exact_length and len(sigmas) != steps + 1:
            allowed = f"{steps + 1}, or `exact_length=False` where it is declared"
            raise BadSchedule(self.name, f"returned {len(sigmas)} levels for {steps} steps", allowed)
        return sigmas

    def _numbers(self, made: object) -> list[float]:
        """What the function returned, as floats; a tensor or an array of one axis will do."""
        given = made.tolist() if hasattr(made, "tolist") else made
        if not isinstance(given, list | tuple):
            raise BadSchedule(self.name, f"returned {_kind(made)}", LEVELS)
        if not given:
            raise BadSchedule(self.name, "returned an empty list", LEVELS)
        wrong = [place for place, level in enumerate(given) if not is_level(level)]
        if wrong:
            words = f"{_kind(given[wrong[0]])} at place {wrong[0]}"
            raise BadSchedule(self.name, f"returned {words if made is given else _kind(made)}", LEVELS)
        return [float(level) for level in given]

    @property
    def options(self) -> tuple[Option, ...]:
        """The settings its signature offers."""
        return options_of(self.function)


def _first_wrong(sigmas: Sequence[float]) -> int | None:
    """The place of the first level that is not finite, is negative or lies above the one before it."""
    for place, sigma in enumerate(sigmas):
        if not math.isfinite(sigma) or sigma < 0 or (place and sigma > sigmas[place - 1]):
            return place
    return None


def is_level(level: object) -> TypeGuard[float]:
    """Whether it is one number: a Python float or int, numpy's, or a tensor without axes."""
    return (isinstance(level, Real) and not isinstance(level, bool)) or (isinstance(level, Tensor) and level.ndim == 0)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {list(shape)}" if shape is not None else "")


SCHEDULES: Registry[Schedule] = Registry("schedule")
MOST_STEPS = 10_000  # of a whole schedule


def check_steps(place: str, steps: int, most: int = MOST_STEPS) -> None:
    """A number of steps is a whole number within bounds."""
    if type(steps) is not int or not 1 <= steps <= most:
        raise BadValue(place, steps, f"a whole number, 1 or more, at most {MOST_STEPS}")


def schedule(
    name: str,
    *,
    registry: Registry[Schedule] = SCHEDULES,
    older: Mapping[int, Mapping[str, Any]] | None = None,
    **declared: Any,
) -> Callable[[ScheduleFunction], ScheduleFunction]:
    """Register a function as the schedule `name`; `older` maps earlier revisions to the fields that differ."""

    def register(function: ScheduleFunction) -> ScheduleFunction:
        if (taken := positional_unlike(function, 2)) is not None:
            raise BadSchedule(name, f"takes {taken}", "(levels, steps), and options behind a `*`")
        newest = declared_record(Schedule, checked_name("schedule", name), function, declared)
        past = [replace(newest, revision=number, **fields) for number, fields in sorted((older or {}).items())[::-1]]
        registry.add(name, replace(newest, older=tuple(past)))
        return function

    return register


def find_schedule(
    name: str, bare_revision: Revision | None = None, registry: Registry[Schedule] = SCHEDULES
) -> Schedule:
    """The schedule a graph names, as `find_solver` finds a sampler."""
    return find(registry, name, bare_revision)


def run_sigmas(
    chosen: Schedule, levels: Levels, steps: int, denoise: float = 1.0, drops_penultimate: bool = False, **options: Any
) -> list[float]:
    """The sigmas of a sampling node: all of them, or for `denoise` < 1 the last steps + 1 of a longer schedule.

    `drops_penultimate`: make the schedule one step longer and leave out its last value above 0.
    """
    check_steps("steps", steps)
    if not is_number(denoise) or not 0.0 <= denoise <= 1.0:
        raise BadValue("denoise", denoise, "a number from 0 to 1")
    if denoise == 0:
        return []
    if steps / denoise > MOST_STEPS:
        allowed = f"steps / denoise of at most {MOST_STEPS}: a longer schedule is made, of which the end is used"
        raise BadValue("denoise", f"{denoise:g} at {steps} steps", allowed)
    full = steps if denoise > 0.9999 else int(steps / denoise)
    sigmas = chosen(levels, full + drops_penultimate, **options)
    if drops_penultimate:
        sigmas = [*sigmas[:-2], sigmas[-1]]
    return sigmas if denoise > 0.9999 else sigmas[-(steps + 1) :]


def step_range(sigmas: Sequence[float], start: int = 0, end: int = 10_000, leftover_noise: bool = False) -> list[float]:
    """The part of a run from step `start` to step `end`; without `leftover_noise` an early end jumps to 0.

    Empty where `start` lies at or behind the end: nothing to do.
    """
    for name, step in (("start", start), ("end", end)):
        if type(step) is not int or step < 0:
            raise BadValue(name, step, "a step, a whole number from 0")
    kept = list(sigmas)
    if end < len(kept) - 1:
        kept = kept[: end + 1]
        if not leftover_noise:
            kept[-1] = 0.0
    return kept[start:] if start < len(kept) - 1 else []


def parse_sigmas(text: str) -> list[float]:
    """Sigmas written by hand: numbers separated by commas, semicolons or blanks; finite, not negative, never rising."""
    given: object = text
    if not isinstance(given, str):
        raise BadValue("sigmas", given, "a string of numbers, separated by commas, semicolons or blanks")
    try:
        sigmas = [float(word) for word in re.split(r"[,;\s]+", text) if word]
    except ValueError as error:
        raise BadValue("sigmas", text, "numbers, separated by commas, semicolons or blanks") from error
    for place, sigma in enumerate(sigmas):
        if sigma < 0 or not math.isfinite(sigma) or sigma > min(sigmas[:place], default=math.inf):
            raise BadValue(f"sigmas[{place}]", sigma, "a finite number, not negative, at most the one before it")
    return sigmas


def interpolate_sigmas(sigmas: Sequence[float], steps: int) -> list[float]:
    """Levels spread over `steps` + 1 values by straight lines in ln(sigma), ends kept; a 0 at the end stays one."""
    if sigmas[-1] == 0:
        return [*interpolate_sigmas(sigmas[:-1], steps - 1), 0.0] if steps > 1 else [sigmas[0], 0.0]
    logs, width = [math.log(sigma) for sigma in sigmas], (len(sigmas) - 1) / max(steps, 1)
    spread = []
    for place in range(steps + 1):
        at = min(place * width, len(logs) - 1.0)
        low = min(int(at), len(logs) - 2)
        spread.append(math.exp(logs[low] + (at - low) * (logs[low + 1] - logs[low])))
    return spread


def with_zero(sigmas: Tensor | Sequence[float]) -> list[float]:
    """The sigmas as Python floats, with the 0 that ends a run."""
    return [*(sigmas.tolist() if isinstance(sigmas, Tensor) else sigmas), 0.0]
