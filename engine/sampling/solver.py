"""What a solver may say (`Evaluate`, `Step`) and know (`Context`), and how one is declared (`@solver`).

A solver is a generator function `(x, sigmas, ctx, *, options...)`. It yields `Evaluate` and is sent the denoised
estimate back; it yields `Step` when a step is done; it returns the final state. It never calls a model, never draws
from a generator of its own and never reads a number back from the device.
"""

import inspect
import typing
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, UnknownName
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.precision import float32
from sigmagraph.engine.sampling.process import Process


class Prediction(NamedTuple):
    """What an evaluation gives: the guided estimate and, where it was asked for, the unconditional one.

    `memory` is what guidance carries to the next evaluation; solvers never see it.
    """

    denoised: Tensor
    uncond: Tensor | None = None
    memory: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Please denoise `x` [B, ...] at `sigma`. Sent back: the estimate, or with `needs_uncond` both as a pair."""

    x: Tensor
    sigma: float
    needs_uncond: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step is done: the new state and the estimate it was made with."""

    x: Tensor
    denoised: Tensor


# What is sent in depends on what was yielded (Tensor, Prediction or None), which Python's types cannot say: hence Any.
Steps: TypeAlias = Generator[Evaluate | Step, Any, Tensor]


class Noise(Enum):
    """Where a solver's noise comes from."""

    NONE = "none"
    SEQUENCE = "sequence"
    BROWNIAN = "brownian"


@dataclass(frozen=True)
class Context:
    """What a solver may know about its run. `draw` and `brownian` give unit-variance noise shaped like the state.

    `dtype` is the state's, `revision` the one the sampler was asked for.
    """

    process: Process
    levels: Levels
    dtype: torch.dtype
    revision: int
    draw: Callable[[], Tensor]
    churn: Callable[[], Tensor]
    brownian: Callable[[float, float], Tensor]

    @property
    def as_recorded(self) -> bool:
        """Whether to keep every quirk of the numbers that existing graphs were made with (revision 1)."""
        return self.revision == 1

    def rounded(self, sigma: float) -> float:
        """A level as the state's precision would hold it, for rules that depend on its last bit."""
        return sigma if self.dtype == torch.float64 else float32(sigma)


class Range(NamedTuple):
    """Bounds of a numeric option, both included."""

    low: float
    high: float


class Choices(NamedTuple):
    """Allowed values of an option that picks a variant."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a solver or schedule, as its signature declares it."""

    name: str
    default: object
    limits: Range | Choices | None
    kind: type

    def check(self, place: str, value: object) -> object:
        """Return `value` if it is of the right kind and within limits; a whole number as an int where one is due."""
        numeric = self.kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is None and self.default is None:
            return None
        whole = self.kind is not int or (isinstance(value, (int, float)) and float(value).is_integer())
        if isinstance(self.limits, Choices) and value in self.limits.values:
            return value
        if isinstance(self.limits, Range) and numeric and whole and self.limits.low <= float(value) <= self.limits.high:  # type: ignore[arg-type]  # numeric says so
            return int(value) if self.kind is int else value  # type: ignore[call-overload]  # numeric says so
        if self.limits is None and (value is None or isinstance(value, self.kind)):
            return value
        raise BadValue(f"{place}.{self.name}", value, self.allowed)

    @property
    def allowed(self) -> str:
        """The limits in words."""
        if isinstance(self.limits, Choices):
            return "one of " + ", ".join(self.limits.values)
        if isinstance(self.limits, Range):
            return f"{self.kind.__name__} from {self.limits.low:g} to {self.limits.high:g}"
        return self.kind.__name__


SolverFunction: TypeAlias = Callable[..., Steps]


@dataclass(frozen=True)
class Solver:
    """One revision of one sampler: the step rule and everything declared about it.

    `order` is what tests hold it to on smooth problems, with its history full (0: it converges to no ODE or SDE);
    `evaluations` counts model evaluations per step;
    `restarts_seed` says that its noise sequence begins with the run's initial noise (existing seeds, CPU);
    `composes_mask` that a masked run ends by putting the kept region back; `masks_with_next_seed` that the kept
    region's noise is not the initial one; `splits_batch` that its steps depend on the image, so each runs alone;
    `inverts` that it can run up a rising schedule, from image to noise;
    `fixed` are options this name settles; `older` are its earlier revisions.
    """

    name: str
    function: SolverFunction
    order: int
    evaluations: int = 1
    noise: Noise = Noise.NONE
    restarts_seed: bool = False
    drops_penultimate: bool = False
    composes_mask: bool = True
    masks_with_next_seed: bool = False
    is_adaptive: bool = False
    splits_batch: bool = False
    on_device: bool = False
    needs_uncond: bool = False
    inverts: bool = False
    source: str = ""
    revision: int = 1
    remark: str = ""
    as_ode: Mapping[str, object] = field(default_factory=lambda: {"eta": 0.0})
    fixed: Mapping[str, object] = field(default_factory=dict)
    older: tuple["Solver", ...] = ()

    @property
    def options(self) -> tuple[Option, ...]:
        """The settings its signature offers, less those its name settles."""
        return tuple(option for option in options_of(self.function) if option.name not in self.fixed)

    @property
    def ode_options(self) -> dict[str, object] | None:
        """The options that leave no noise in it; None where there are none such."""
        known = {option.name for option in self.options}
        found = {name: value for name, value in self.as_ode.items() if name in known}
        return found if found or self.noise is Noise.NONE else None

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def at(self, revision: int | None) -> "Solver":
        """This sampler as it was at `revision`; None means the newest."""
        found = [one for one in (self, *self.older) if revision is None or one.revision == revision]
        if not found:
            raise BadValue(f"sampler {self.name} revision", revision, f"1 to {self.revision}")
        return found[0]

    def checked(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options, each known and within limits, with what the name settles."""
        known = {option.name: option for option in self.options}
        for name in options:
            if name not in known:
                raise UnknownName(f"option of sampler {self.name}", name, known)
        place = f"sampler {self.name}"
        return {name: known[name].check(place, value) for name, value in options.items()} | dict(self.fixed)

    def start(self, x: Tensor, sigmas: Sequence[float], ctx: Context, options: Mapping[str, object]) -> Steps:
        """The coroutine, at its beginning."""
        return self.function(x, sigmas, ctx, **self.checked(options))


SOLVERS: Registry[Solver] = Registry("sampler")


def solver(
    name: str,
    *,
    order: int,
    registry: Registry[Solver] = SOLVERS,
    older: Mapping[int, Mapping[str, Any]] | None = None,
    **declared: Any,
) -> Callable[[SolverFunction], SolverFunction]:
    """Register a generator function as the sampler `name`; `declared` are further fields of `Solver`.

    `older` maps an earlier revision to the fields in which it differs. Revision 1 of a sampler that has a revision 2
    is the one existing graphs mean: its noise sequence restarts the seed, and it does not compose masks.
    """

    def register(function: SolverFunction) -> SolverFunction:
        newest = Solver(name, function, order, **declared)
        past = []
        for number in range(newest.revision - 1, 0, -1):
            as_recorded = {"restarts_seed": newest.noise is Noise.SEQUENCE, "composes_mask": False}
            past.append(replace(newest, revision=number, **(as_recorded | dict((older or {}).get(number, {})))))
        registry.add(name, replace(newest, older=tuple(past)))
        return function

    return register


def alias(
    name: str,
    of: str,
    registry: Registry[Solver] = SOLVERS,
    older: Mapping[int, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Solver:
    """Register `name` as the sampler `of` with some fields (often `fixed`) changed, in every revision."""
    base = registry[of]
    past = tuple(replace(one, name=name, **(fields | dict((older or {}).get(one.revision, {})))) for one in base.older)
    return registry.add(name, replace(base, name=name, older=past, **fields))


def options_of(function: Callable[..., object]) -> tuple[Option, ...]:
    """The keyword-only parameters of a solver or schedule function, as options."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            hint, limits = hints[parameter.name], None
            if typing.get_origin(hint) is Annotated:
                hint, limits = typing.get_args(hint)[:2]
            bare = [one for one in typing.get_args(hint) if one is not type(None)] or [hint]
            found.append(Option(parameter.name, parameter.default, limits, bare[0]))
    return tuple(found)


def find_solver(name: str, bare_revision: int | None = None, registry: Registry[Solver] = SOLVERS) -> Solver:
    """The sampler a graph names: `name@revision`, or a bare name, which means `bare_revision` (None: the newest)."""
    return registry[name.partition("@")[0]].at(revision_of(name, bare_revision))


def revision_of(name: str, bare_revision: int | None) -> int | None:
    """The number behind the `@` of a sampler or schedule name; saved graphs from elsewhere write none and mean 1."""
    _, mark, number = name.partition("@")
    if mark and not number.isdecimal():
        raise BadValue(name, number, "a whole number behind the '@'")
    return int(number) if mark else bare_revision
