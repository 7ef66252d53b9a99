"""What a solver may say (`Evaluate`, `Step`) and know (`Context`), and how one is declared (`@solver`).

A solver is a generator function `(x, sigmas, ctx, *, options...)`. It yields `Evaluate` and is sent the denoised
estimate back; it yields `Step` when a step is done; it returns the final state. It never calls a model, never draws
from a generator of its own and never reads a number back from the device.
"""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadSampler, UnknownName
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling.caller_values import declared_record, whole_number
from sigmagraph.engine.sampling.levels import Levels
from sigmagraph.engine.sampling.noise import Seeding
from sigmagraph.engine.sampling.options import Option, options_of, positional_unlike
from sigmagraph.engine.sampling.precision import float32
from sigmagraph.engine.sampling.process import Process
from sigmagraph.engine.sampling.transition import Transition
from sigmagraph.engine.sampling.versioned import Revision, Versioned, checked_name, find


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
    """One step is done: the new state, the estimate it was made with, and where it might have led, if that is known."""

    x: Tensor
    denoised: Tensor
    transition: Transition | None = None


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

    `dtype` is the state's. `chosen`, where it is given, says where a step leads instead of noise.
    """

    process: Process
    levels: Levels
    dtype: torch.dtype
    draw: Callable[[], Tensor]
    churn: Callable[[], Tensor]
    brownian: Callable[[float, float], Tensor]
    chosen: Callable[[Transition], Tensor] | None = None

    def sample(self, transition: Transition) -> Tensor:
        """A state from the transition's distribution; its mean where the step is deterministic."""
        if self.chosen is not None:
            return self.chosen(transition)
        return transition.mean.add(self.draw(), alpha=transition.std) if transition.is_stochastic else transition.mean

    def rounded(self, sigma: float) -> float:
        """A level as the state's precision would hold it, for rules that depend on its last bit."""
        return sigma if self.dtype == torch.float64 else float32(sigma)


SolverFunction: TypeAlias = Callable[..., Steps]
Told: TypeAlias = Callable[[Sequence[float], Context], tuple[Sequence[float], Context]]


@dataclass(frozen=True)
class Solver(Versioned):
    """One revision of one sampler: the step rule and everything declared about it.

    `order` is what tests hold it to on smooth problems, with its history full (0: it converges to no ODE or SDE);
    `evaluations` counts model evaluations per step;
    `seeding` says where its noise sequence begins;
    `composes_mask` that a masked run ends by putting the kept region back; `masks_with_next_seed` that the kept
    region's noise is not the initial one; `splits_batch` that its steps depend on the image, so each runs alone;
    `own_steps` that its steps are not the schedule's;
    `inverts` that it can run up a rising schedule, from image to noise;
    `told` changes what it is told of its run, levels and context; `fixed` are options this name settles; `older` are
    its earlier revisions.
    """

    kind: ClassVar[str] = "sampler"
    name: str
    function: SolverFunction
    order: int
    evaluations: int = 1
    noise: Noise = Noise.NONE
    seeding: Seeding = Seeding.DERIVED
    drops_penultimate: bool = False
    composes_mask: bool = True
    masks_with_next_seed: bool = False
    is_adaptive: bool = False
    own_steps: bool = False
    splits_batch: bool = False
    on_device: bool = False
    needs_uncond: bool = False
    inverts: bool = False
    source: str = ""
    revision: Revision = 1
    since: tuple[int, ...] = ()
    remark: str = ""
    as_ode: Mapping[str, object] = field(default_factory=lambda: {"eta": 0.0})
    told: Told | None = None
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
        if self.told is not None:
            sigmas, ctx = self.told(sigmas, ctx)
        return self.function(x, sigmas, ctx, **self.checked(options))


SOLVERS: Registry[Solver] = Registry("sampler")
SEQUENCE_CHANGED = "comfyui-0.8"  # sequential noise on a CPU begins one seed later than in 0.3


def solver(
    name: str,
    *,
    order: int,
    registry: Registry[Solver] = SOLVERS,
    older: Mapping[Revision, Mapping[str, Any]] | None = None,
    **declared: Any,
) -> Callable[[SolverFunction], SolverFunction]:
    """Register a generator function as the sampler `name`; `declared` are further fields of `Solver`.

    `older` maps an earlier revision to the fields in which it differs. Revision 1 of a sampler that has a revision 2
    is ComfyUI 0.3's: its noise sequence begins with the seed, and it does not compose masks. Where it draws a
    sequence, ComfyUI computes something else from 0.7 on: that is a revision of its own, `comfyui-0.8`.
    """
    differences = dict(older or {})

    def register(function: SolverFunction) -> SolverFunction:
        if (taken := positional_unlike(function, 3)) is not None:
            raise BadSampler(name, f"takes {taken}", "(x, sigmas, ctx), and options behind a `*`")
        allowed = "a whole number: how fast its error shrinks, or 0 where it converges to no ODE or SDE"
        declared["order"] = whole_number(f"sampler {name}.order", order, allowed)
        newest = declared_record(Solver, checked_name("sampler", name), function, declared)
        count = newest.revision if isinstance(newest.revision, int) else 1
        past = [replace(newest, revision=one, **differences.get(one, {})) for one in range(count - 1, 1, -1)]
        if count > 1:
            seeding = Seeding.SAME if newest.noise is Noise.SEQUENCE else Seeding.DERIVED
            existing: dict[str, Any] = {"seeding": seeding, "composes_mask": False}
            past.append(replace(newest, revision=1, **(existing | dict(differences.get(1, {})))))
        if past and past[-1].seeding is Seeding.SAME:
            changed = dict(differences.get(SEQUENCE_CHANGED, {}))
            past.append(replace(past[-1], revision=SEQUENCE_CHANGED, since=(0, 7), seeding=Seeding.NEXT, **changed))
        registry.add(name, replace(newest, older=tuple(past)))
        return function

    return register


def alias(
    name: str,
    of: str,
    registry: Registry[Solver] = SOLVERS,
    older: Mapping[Revision, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Solver:
    """Register `name` as the sampler `of` with some fields changed, in every revision.

    What `fixed` settles is added to what is settled already.
    """

    def renamed(one: Solver, **changed: Any) -> Solver:
        return replace(one, name=name, **(changed | {"fixed": {**one.fixed, **changed.get("fixed", {})}}))

    base = registry[of]
    draws = fields.get("noise", base.noise) is not Noise.NONE  # without noise ComfyUI's revisions are one
    kept = [one for one in base.older if draws or not one.since]
    past = tuple(renamed(one, **(fields | dict((older or {}).get(one.revision, {})))) for one in kept)
    return registry.add(name, replace(renamed(base, **fields), older=past))


def find_solver(name: str, bare_revision: Revision | None = None, registry: Registry[Solver] = SOLVERS) -> Solver:
    """The sampler that `name` or `name@revision` means; a bare name means `bare_revision` (None: the newest)."""
    return find(registry, name, bare_revision)
