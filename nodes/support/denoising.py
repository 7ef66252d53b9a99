"""From a latent through a sampler to a latent: the way every sampling node goes. Knows no node and no wire name."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadPrediction, BadValue
from sigmagraph.engine.graph.kept import Kept
from sigmagraph.engine.graph.lock import STEP_CACHE
from sigmagraph.engine.graph.node import Progress, UiResult
from sigmagraph.engine.graph.results import Joinable
from sigmagraph.engine.models.memory.device import tabulates
from sigmagraph.engine.models.value import Model, Question, predict_together
from sigmagraph.engine.sampling import Denoiser, NoiseSource, Recording, Sampling, Solver
from sigmagraph.engine.sampling.caches.caching import CacheReport
from sigmagraph.engine.sampling.guidance import PredictRequest
from sigmagraph.engine.sampling.rehearsal import rehearsed
from sigmagraph.engine.sampling.solver_run import Tick
from sigmagraph.nodes.support.kept_predictions import resumed
from sigmagraph.nodes.support.latent_preview import LatentPreview
from sigmagraph.nodes.support.types import LatentValue

__all__ = [
    "LatentRun",
    "LatentSteps",
    "Outcome",
    "Pair",
    "Sampled",
    "Way",
    "denoised_latent",
    "in_model_space",
    "in_vae_units",
]

Value = TypeVar("Value")
Said = Progress | Joinable
"""A sampler reports its steps, and asks for predictions, which may be made together with those of other jobs."""
LatentSteps = Generator[Said, Any, LatentValue | UiResult]
Way = Generator[Said, Any, UiResult]
Outcome = Generator[Said, Any, "Sampled"]
Pair = Generator[Said, Any, tuple[LatentValue, LatentValue] | UiResult]


class Sampled(NamedTuple):
    """What sampling leaves: the last state, the last estimate of the clean latent, and what a step cache did."""

    latent: LatentValue
    estimate: LatentValue
    cached: CacheReport | None = None

    def shown(self, value: Value) -> Value | UiResult:
        """A node's value, with the report on the step cache where there was one."""
        return value if self.cached is None else UiResult(value, {STEP_CACHE: [self.cached.written()]})


def denoised_latent(
    model: Model,
    denoiser: Denoiser,
    latent: LatentValue,
    sigmas: Sequence[float],
    solver: Solver,
    noise: NoiseSource,
    options: Mapping[str, object] | None = None,
    kept: Kept | None = None,
    watch: Callable[[Tick], None] = lambda tick: None,
) -> Outcome:
    """Run `solver` over `sigmas`; the last state and the last estimate of the clean latent, both in VAE units.

    An empty schedule gives the latent back as it is. A latent of nothing but zeros is not shifted into model space.
    Where a killed process left predictions of the same run in `kept`, it goes on from there, bit for bit. With a step
    cache whose drift is to be measured, a second run without it follows. `watch` hears of every evaluation of the
    first, in model space.
    """
    run = LatentRun(model, denoiser, latent, sigmas, solver, noise, options or {}, kept, watch)
    return (yield from run.outcome())


@runtime_checkable
class Surrounds(Protocol):
    """A change of guidance that also surrounds whole runs, where `surrounds` says so."""

    @property
    def surrounds(self) -> bool:
        """Whether it does."""

    def surround(self, run: "LatentRun") -> Outcome:
        """The run, by way of it."""


@dataclass(frozen=True, eq=False)
class LatentRun:
    """One run, as `denoised_latent` is told it, within so many of what surrounds the model's runs."""

    model: Model
    denoiser: Denoiser
    latent: LatentValue
    sigmas: Sequence[float]
    solver: Solver
    noise: NoiseSource
    options: Mapping[str, object]
    kept: Kept | None
    watch: Callable[[Tick], None]
    within: int = 0

    def outcome(self) -> Outcome:
        """What comes of it, by way of all that surrounds it."""
        changes: Sequence[object] = self.model.guidance
        around = [one for one in changes if isinstance(one, Surrounds) and one.surrounds]
        if self.within < len(around):
            return (yield from around[self.within].surround(replace(self, within=self.within + 1)))
        return (yield from _sampled(self))


def _sampled(run: LatentRun) -> Outcome:
    """The run itself."""
    model, latent, sigmas, solver, watch = run.model, run.latent, run.sigmas, run.solver, run.watch
    options = run.options
    if len(sigmas) < 2:
        return Sampled(latent, latent)
    start = in_model_space(model, latent.samples)
    recording = resumed(run.kept, start.device)
    if tabulates(model.placement.device):
        model.expect(rehearsed(solver, sigmas, model.parameterisation, options))
    reports: list[CacheReport] = []
    sampling = Sampling(
        run.denoiser,
        start,
        sigmas,
        model.parameterisation,
        solver,
        noise=run.noise,
        options=options,
        mask=latent.noise_mask,
        mask_rule=model.mask_change(model, sigmas) if model.mask_change is not None else None,
        batch_index=latent.batch_index,
        on_cached=reports.append,
    )
    measures = model.measures_drift and model.step_cache is not None
    try:
        final, estimate = yield from _driven(model, sampling, recording, (0, 1 + measures), watch)
        recording.done()
    except BadPrediction:
        recording.done()
        raise
    finally:
        recording.leave()
    report = reports[0] if reports else None
    if report is not None and measures:
        plain, _ = yield from _driven(model, sampling.without_cache(), None, (1, 2))
        report = report.measured(final, plain)
    return Sampled(in_vae_units(model, latent, final), in_vae_units(model, latent, estimate), report)


def _driven(
    model: Model,
    sampling: Sampling,
    recording: Recording | None,
    part: tuple[int, int],
    watch: Callable[[Tick], None] = lambda tick: None,
) -> Generator[Said, Any, tuple[Tensor, Tensor]]:
    """A sampling to its end: the last state and estimate, in model units. It is the `part`-th of so many alike."""
    steps, estimate, answer = sampling.requests(recording), sampling.latent, None
    before, parts = part
    try:
        while True:
            said = steps.send(answer)
            if isinstance(said, PredictRequest):
                joinable = _joinable(model, said)
                answer = yield joinable
                answer = joinable.alone() if answer is None else answer
            else:
                answer, estimate = None, said.denoised
                watch(said)
                yield Progress(
                    before * said.steps + said.step,
                    parts * said.steps,
                    preview=LatentPreview(said.denoised, model.file),
                )
    except StopIteration as end:
        final: Tensor = end.value
        return final, estimate
    finally:
        steps.close()


def _joinable(model: Model, ask: PredictRequest) -> Joinable:
    """Predictions of one network over states of one size can be made together; all others are made alone."""
    if ask.predict == model.predict:
        return Joinable(model.joins(ask.x), (model, ask.x, ask.sigma, ask.conditionings), _predictions)
    return Joinable(object(), ask, _answers)


@torch.inference_mode()
def _predictions(questions: Sequence[Question]) -> list[list[Tensor]]:
    return predict_together(questions)


@torch.inference_mode()
def _answers(asks: Sequence[PredictRequest]) -> list[Sequence[Tensor]]:
    return [request.answer() for request in asks]


def in_model_space(model: Model, samples: Tensor) -> Tensor:
    """VAE units -> model units on the model's device; blank latents fit any number of channels."""
    channels, side = model.spec.latent_format.channels, model.spec.largest_side
    height, width = (size * model.spec.latent_format.downscale for size in samples.shape[-2:])
    if max(height, width) > side:
        raise BadValue("latent_image", f"{width} x {height} pixels", f"at most {side} pixels a side for this model")
    is_blank = not torch.count_nonzero(samples)
    if samples.shape[1] != channels and not is_blank:
        raise BadValue("latent_image", f"{samples.shape[1]} channels", f"{channels} channels, as this model has")
    if is_blank:
        repeats = math.ceil(channels / samples.shape[1])
        return samples.repeat(1, repeats, 1, 1)[:, :channels].to(model.placement.device)
    return model.spec.latent_format.to_model(samples).to(model.placement.device)


def in_vae_units(model: Model, latent: LatentValue, samples: Tensor) -> LatentValue:
    """Model units -> VAE units in main memory, at the places of `latent`."""
    return latent.with_samples(model.spec.latent_format.to_vae(samples.float()).cpu())
