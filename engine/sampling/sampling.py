"""One sampling as a value: from a latent to a latent, over a schedule, by a solver.

Sampling.run()           to the end: the final latent
Sampling.ticks()         the same, watched: a generator of one `Tick` an evaluation
Sampling.requests()      the same, answered from outside: it also yields each `PredictRequest`
drive_requests(SolverRun) one solver under way: requests, checks, recording, replay (solver_run.py)
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, Cancelled
from sigmagraph.engine.sampling.caches.caching import CacheReport, reported, without_caches
from sigmagraph.engine.sampling.denoiser import Beginning, Denoiser, Requesting, gives_uncond
from sigmagraph.engine.sampling.fingerprint import fingerprint
from sigmagraph.engine.sampling.mask import Masked, MaskRule, fitted
from sigmagraph.engine.sampling.noise import NoiseSource, OneImage
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.record import Recording
from sigmagraph.engine.sampling.schedule import is_level
from sigmagraph.engine.sampling.solver import SOLVERS, Solver, find_solver
from sigmagraph.engine.sampling.solver_run import (
    Driven,
    SolverRun,
    Tick,
    context_of,
    drive_requests,
    ticks_only,
    tracking,
)
from sigmagraph.engine.sampling.transition import Transition

HIGHEST = torch.finfo(torch.float32).max
HALF = (torch.float16, torch.bfloat16)  # latents of these are sampled in float32: the state's rounding adds up


@dataclass(frozen=True, eq=False)
class Sampling:
    """Noise `latent` [B, C, H, W] (clean, in model units) to the first sigma and solve to the last.

    The result is in float32 or better. `mask`: 1 = make anew, 0 = keep; `mask_rule` changes it with the noise level.
    `batch_index` says which image of a batch each one is. `gradients`: do not enter inference mode, so that they flow
    through state and denoiser where the caller tracks them. A bare name of a solver is its newest revision. A schedule
    without a step or without noise gives the latent as it is. `on_cached` hears what step caches did, once at the end.
    """

    denoiser: Denoiser
    latent: Tensor
    sigmas: Sequence[float]
    model: Parameterisation
    solver: Solver | str = "euler"
    _: KW_ONLY
    noise: NoiseSource
    options: Mapping[str, object] | None = None
    mask: Tensor | None = None
    mask_rule: MaskRule | None = None
    batch_index: Sequence[int] | None = None
    gradients: bool = False
    on_cached: Callable[[CacheReport], None] | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        places, images = self.batch_index, self.latent.shape[0] if self.latent.ndim else 0
        if not self.latent.is_floating_point() or images == 0:
            given = f"{self.latent.dtype} {tuple(self.latent.shape)}"
            raise BadValue("latent", given, "one image or more, [B, ...], of floating-point numbers")
        if places is not None and (len(places) != images or not all(map(_is_place, places))):
            raise BadValue("batch_index", list(places), f"a place from 0 for each of the latent's {images} images")
        if self.rule.needs_uncond and not gives_uncond(self.denoiser):
            given = getattr(self.denoiser, "__qualname__", type(self.denoiser).__qualname__)
            allowed = f"one that takes `needs_uncond`, such as Cfg: sampler {self.rule.name} needs both estimates"
            raise BadValue("denoiser", given, allowed)

    def _check_kinds(self) -> None:
        """What each part is, before anything is asked of it: callers without a type checker get it wrong."""
        kinds: tuple[tuple[str, object, Any, str], ...] = (
            ("denoiser", self.denoiser, (Callable, Requesting), "a function (x, sigma) -> denoised, such as Cfg"),
            ("latent", self.latent, Tensor, "a tensor [B, ...]"),
            ("model", self.model, Parameterisation, "a Parameterisation, such as sd3()"),
            ("solver", self.solver, (Solver, str), "the name of a sampler, or a Solver"),
            ("noise", self.noise, NoiseSource, "a source of noise, such as PhiloxNoise(seed)"),
            ("options", self.options, (Mapping, NoneType), "a mapping from an option's name to its value"),
            ("mask", self.mask, (Tensor, NoneType), "a tensor, or None"),
            ("batch_index", self.batch_index, (Sequence, NoneType), "a list of places, or None"),
        )
        for place, value, kind, allowed in kinds:
            if not isinstance(value, kind):
                raise BadValue(place, value, allowed)
        if isinstance(self.sigmas, str | bytes) or not isinstance(self.sigmas, Collection):
            raise BadValue("sigmas", self.sigmas, "a list of numbers, the levels")

    @property
    def rule(self) -> Solver:
        """The solver itself, whether it was given or named."""
        return find_solver(self.solver) if isinstance(self.solver, str) else self.solver

    @property
    def about(self) -> str:
        """What a recording of this run belongs to; the digest is over latent, mask, model, prompts and guidance."""
        made_of = fingerprint(self.latent, self.mask, self.mask_rule, self.batch_index, self.model, self.denoiser)
        given, declared = dict(self.options or {}), [option.name for option in self.rule.options]
        options = {
            name: given.pop(name) for name in declared if name in given
        } | given  # the order given does not count
        return f"{self.rule} {options} over {[*self.sigmas]} by {self.noise} of {made_of}"

    def run(
        self,
        recording: Recording | None = None,
        *,
        on_tick: Callable[[Tick], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """The final latent. `is_cancelled` is asked between evaluations and ends the run with `Cancelled`."""
        ticks = self.ticks(recording)
        while True:
            try:
                tick = next(ticks)
            except StopIteration as end:
                result: Tensor = end.value
                return result
            if on_tick is not None:
                on_tick(tick)
            if is_cancelled is not None and is_cancelled():
                ticks.close()
                raise Cancelled(f"cancelled after {tick.evaluations} evaluations, step {tick.step} of {tick.steps}")

    def along(self, states: Sequence[Tensor]) -> Generator[Tick, None, Tensor]:
        """As `ticks`, over a way that was taken before: each step starts from, and leads to, its state in `states`.

        Of a sampler whose steps say where they might lead. With `gradients`, their log-probabilities are those of a
        policy gradient: no graph passes through the states, one does through each step's estimates.
        """
        ahead = iter([state.detach().clone() for state in states])

        def chosen(transition: Transition) -> Tensor:
            if (state := next(ahead, None)) is None:
                raise BadValue("states", f"{len(states)} of them", "the state after each step of the run")
            if state.shape != transition.mean.shape:
                raise BadValue(
                    "states", tuple(state.shape), f"states of the run's shape {tuple(transition.mean.shape)}"
                )
            return state

        with tracking(self.gradients):
            ready = self._prepared(chosen)
        ticks = ticks_only(drive_requests(ready.run, ready.denoiser, None, self.gradients), self.gradients)
        x = yield from ticks
        return ready.finish(x).clone()

    def ticks(self, recording: Recording | None = None) -> Generator[Tick, None, Tensor]:
        """A tick an evaluation; the return value is the final latent.

        `recording` is replayed as far as it goes and then extended.
        """
        return ticks_only(self.requests(recording), self.gradients)

    def requests(self, recording: Recording | None = None) -> Driven:
        """As `ticks`, but each `PredictRequest` it yields must be sent its estimates: for who predicts for several."""
        if len(self.sigmas) < 2 or not any(self.sigmas):
            return self.latent.clone()
        if recording is not None and recording.asks_whose_it_is:
            recording.belongs_to(self.about)
        if not self.rule.splits_batch or self.latent.shape[0] == 1:
            return (yield from self._together(recording))
        finals = []
        reports: list[CacheReport] = []
        for image in self._images():
            final = yield from replace(image, on_cached=reports.append)._together(recording)
            finals.append(final)
        if self.on_cached is not None and reports:
            self.on_cached(CacheReport.of_images(reports))
        return torch.cat(finals)

    def without_cache(self) -> "Sampling":
        """The same run with nothing left out, to measure how far step caches lead off."""
        return replace(self, denoiser=without_caches(self.denoiser), on_cached=None)

    def _images(self) -> list["Sampling"]:
        """The same for each image alone: for a batch whose images must not share their steps."""
        masks = None if self.mask is None else fitted(self.mask, self.latent)
        return [
            replace(
                self,
                latent=self.latent[place : place + 1],
                noise=OneImage(self.noise, self.latent, place, self.batch_index),
                mask=None if masks is None else masks[place].reshape(-1, *masks.shape[-2:])[:1],
                batch_index=None,
            )
            for place in range(self.latent.shape[0])
        ]

    def _together(self, recording: Recording | None) -> Driven:
        with tracking(self.gradients):
            ready = self._prepared()
        x = yield from drive_requests(ready.run, ready.denoiser, recording, self.gradients)
        if self.on_cached is not None and (report := reported(ready.denoiser, x, float(self.sigmas[-1]))) is not None:
            self.on_cached(report)
        return ready.finish(x).clone()  # a clone made here is no inference tensor

    def _prepared(self, chosen: Callable[[Transition], Tensor] | None = None) -> "_Prepared":
        """Noise, start state, context and mask."""
        solver, model, levels = self.rule, self.model, checked_sigmas(self.sigmas, self.rule)
        if model.process.alpha(max(levels)) < 0:
            allowed = "levels of a rectified flow, at most 1, such as BasicScheduler gives for this model"
            raise BadValue("sigmas", f"{max(levels):.9g}", allowed)
        denoiser = self.denoiser.begin() if isinstance(self.denoiser, Beginning) else self.denoiser
        noise = self.noise.initial(self.latent, self.batch_index)
        latent, noise = (one.float() if one.dtype in HALF else one for one in (self.latent, noise))
        x = model.start(levels[0], noise, latent)
        context = context_of(solver, x, levels, model, self.noise, self.batch_index)
        run = SolverRun(solver, x, levels, replace(context, chosen=chosen), self.options or {})
        if self.mask is None:
            return _Prepared(run, denoiser, lambda x: model.released(levels[-1], x))
        kept_noise = self.noise.mask_noise(x) if solver.masks_with_next_seed else noise
        masked = Masked(
            denoiser,
            fitted(self.mask, latent),
            latent,
            lambda sigma: model.noised(sigma, kept_noise, latent),
            self.mask_rule,
        )

        def finish(x: Tensor) -> Tensor:
            return model.released(levels[-1], masked.blended(x, levels[-1]) if solver.composes_mask else x)

        return _Prepared(run, masked, finish)


@dataclass(frozen=True)
class _Prepared:
    """A run before its first evaluation: solver with start state, denoiser with mask, and what is done to the end."""

    run: SolverRun
    denoiser: Denoiser
    finish: Callable[[Tensor], Tensor]


def checked_sigmas(sigmas: Sequence[float], solver: Solver) -> list[float]:
    """The sigmas: finite, not negative, falling; they may rise for a sampler that can invert, each level once.

    A repeated sigma is a step of length zero and is left out. Only the last may be 0.
    """
    kept: list[float] = []
    for place, level in enumerate(sigmas):
        if not is_level(level) or not 0 <= level <= HIGHEST:
            raise BadValue(f"sigmas[{place}]", level, "a finite number, 0 or more, that single precision holds")
        sigma = float(level)
        if kept and sigma > kept[-1]:
            _check_rise(place, sigma, kept, solver)
        if not kept or sigma != kept[-1]:
            kept.append(sigma)
    if any(before < after for before, after in pairwise(kept)) and len(set(kept)) < len(kept):
        twice = next(sigma for sigma in kept if kept.count(sigma) > 1)
        raise BadValue("sigmas", f"{twice:.6g} on the way up and on the way down", "each level once where levels rise")
    return kept


def _is_place(place: object) -> bool:
    return isinstance(place, int) and not isinstance(place, bool) and place >= 0


def _check_rise(place: int, sigma: float, kept: Sequence[float], solver: Solver) -> None:
    """A step up, from above 0, by a rule in which nothing depends on the direction."""
    if not solver.inverts:
        able = ", ".join(sorted(name for name, one in SOLVERS.items() if one.inverts))
        allowed = f"at most the sigma before it, {kept[-1]:.6g}: of samplers only {able} go up"
        raise BadValue(f"sigmas[{place}]", sigma, allowed)
    if kept[-1] == 0:
        raise BadValue(f"sigmas[{place}]", sigma, "0 as the last level only: nothing rises from it")
