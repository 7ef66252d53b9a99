"""The one loop: start state, inference mode, ticks, cancelling, NaN check, counts, recording, resuming.

`sample_steps` is a generator, so whoever drives it may stop, interleave or report between evaluations. Nothing here
waits for the device inside a step.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import BadPrediction, BadValue, Cancelled
from engine.sampling.finite import FiniteWatch
from engine.sampling.guidance import Denoiser, Remembering
from engine.sampling.mask import Masked, fitted
from engine.sampling.noise import NoiseSource, OneImage, Wanted
from engine.sampling.parameterisation import Parameterisation
from engine.sampling.record import Recording
from engine.sampling.solver import Context, Evaluate, Prediction, Solver, Step, find_solver

HALF = (torch.float16, torch.bfloat16)  # latents of these are sampled in float32: the state's rounding adds up


@dataclass(frozen=True, slots=True)
class Tick:
    """One evaluation is done: `step` steps of `steps` are complete; `x` and `denoised` are the newest."""

    step: int
    steps: int
    sigma: float
    evaluations: int
    x: Tensor
    denoised: Tensor


class Run:
    """One solver under way: `request` is what it wants evaluated next, None once `result` is there.

    Whoever drives it says whether gradients are tracked; `drive` runs it in inference mode.
    """

    def __init__(
        self, solver: Solver, x: Tensor, sigmas: Sequence[float], ctx: Context, options: Mapping[str, object]
    ) -> None:
        self._coroutine = solver.start(x, sigmas, ctx, options)
        self.steps = len(sigmas) - 1
        self.step = self.evaluations = 0
        self.request: Evaluate | None = None
        self.result: Tensor | None = None
        self.done: list[Step] = []
        self._advance(None)

    def answer(self, prediction: Prediction) -> None:
        """Hand over what `request` asked for; the solver runs on to its next request or to its end."""
        assert self.request is not None
        if self.request.needs_uncond and prediction.uncond is None:
            raise BadPrediction("this sampler needs the unconditional estimate, and the guidance gave none")
        self.evaluations += 1
        self._advance(prediction[:2] if self.request.needs_uncond else prediction.denoised)

    def close(self) -> None:
        """Stop the solver where it stands."""
        self._coroutine.close()

    def _advance(self, value: tuple[Tensor, Tensor | None] | Tensor | None) -> None:
        self.request, self.done = None, []
        try:
            said = self._coroutine.send(value)
            while isinstance(said, Step):
                self.step += 1
                self.done.append(said)
                said = self._coroutine.send(None)
            self.request = said
        except StopIteration as end:
            self.result = end.value


def drive(run: Run, denoiser: Denoiser, recording: Recording | None = None) -> Generator[Tick, None, Tensor]:
    """Answer a run's requests until it ends; predictions already in `recording` are replayed, not made again."""
    replay = recording.rest() if recording is not None else iter(())
    while run.request is not None and (known := next(replay, None)) is not None:
        run.answer(known)
        if known.memory is not None and isinstance(denoiser, Remembering):
            denoiser.remember(known.memory)
    watch = FiniteWatch()
    try:
        while (request := run.request) is not None:
            with torch.inference_mode():
                prediction = denoiser(request.x, request.sigma, request.needs_uncond)
                if prediction.denoised.shape != request.x.shape:
                    raise BadPrediction(
                        f"step {run.step + 1}, sigma {request.sigma:.6g}: the model returned shape "
                        f"{tuple(prediction.denoised.shape)} for a state of shape {tuple(request.x.shape)}"
                    )
                watch.add(prediction.denoised, run.step + 1, request.sigma)
                if recording is not None:
                    recording.add(prediction)
                run.answer(prediction)
            x, denoised = (run.done[-1].x, run.done[-1].denoised) if run.done else (request.x, prediction.denoised)
            yield Tick(min(run.step, run.steps), run.steps, request.sigma, run.evaluations, x, denoised)
    finally:
        run.close()
    watch.finish()
    assert run.result is not None
    return run.result


def context_of(
    solver: Solver,
    x: Tensor,
    sigmas: Sequence[float],
    parameterisation: Parameterisation,
    noise: NoiseSource,
    batch_index: Sequence[int] | None = None,
) -> Context:
    """What a solver may know about a run that starts from `x`."""
    lowest = min((sigma for sigma in sigmas if sigma > 0), default=0.0)
    wanted = Wanted(lowest, max(sigmas), solver.restarts_seed, solver.on_device, batch_index)
    streams = noise.streams(x, wanted)
    return Context(
        parameterisation.process,
        parameterisation.levels,
        x.dtype,
        solver.revision,
        streams.draw,
        streams.churn,
        streams.brownian,
    )


@dataclass(frozen=True)
class Prepared:
    """A run before its first evaluation: solver with start state, denoiser with mask, and the last words."""

    run: Run
    denoiser: Denoiser
    finish: Callable[[Tensor], Tensor]


def prepare(
    denoiser: Denoiser,
    latent: Tensor,
    sigmas: Sequence[float],
    parameterisation: Parameterisation,
    solver: Solver,
    noise: NoiseSource,
    options: Mapping[str, object],
    mask: Tensor | None,
    batch_index: Sequence[int] | None,
) -> Prepared:
    """Everything a run needs, from the latent as it is: noise, start state, context, mask."""
    levels = checked_sigmas(sigmas, solver)
    initial = noise.initial(latent, batch_index)
    latent, initial = (one.float() if one.dtype in HALF else one for one in (latent, initial))
    x = parameterisation.start(levels[0], initial, latent)
    context = context_of(solver, x, levels, parameterisation, noise, batch_index)
    run = Run(solver, x, levels, context, options)
    if mask is None:
        return Prepared(run, denoiser, lambda x: parameterisation.released(levels[-1], x))
    kept_noise = noise.mask_noise(x) if solver.masks_with_next_seed else initial
    masked = Masked(
        denoiser, fitted(mask, latent), latent, lambda sigma: parameterisation.noised(sigma, kept_noise, latent)
    )

    def finish(x: Tensor) -> Tensor:
        composed = masked.blended(x, levels[-1]) if solver.composes_mask else x
        return parameterisation.released(levels[-1], composed)

    return Prepared(run, masked, finish)


def sample_steps(
    denoiser: Denoiser,
    latent: Tensor,
    sigmas: Sequence[float],
    parameterisation: Parameterisation,
    solver: Solver | str = "euler",
    *,
    noise: NoiseSource,
    options: Mapping[str, object] | None = None,
    mask: Tensor | None = None,
    batch_index: Sequence[int] | None = None,
    recording: Recording | None = None,
) -> Generator[Tick, None, Tensor]:
    """Noise `latent` [B, C, H, W] (model units) to the first sigma and solve to the last: a generator of `Tick`s.

    Its return value is the final latent, in float32 or better. `mask`: 1 = make anew. `recording` is replayed as far
    as it goes and then extended. An empty schedule returns the latent as it is.
    """
    if len(sigmas) < 2:
        return latent.clone()
    chosen = find_solver(solver) if isinstance(solver, str) else solver
    if recording is not None and not isinstance(noise, OneImage):
        recording.belongs_to(f"{chosen.name}@{chosen.revision} {dict(options or {})} over {[*sigmas]} by {noise}")
    if chosen.splits_batch and latent.shape[0] > 1:
        return (
            yield from one_by_one(
                denoiser, latent, sigmas, parameterisation, chosen, noise, options, mask, batch_index, recording
            )
        )
    with torch.inference_mode():
        ready = prepare(denoiser, latent, sigmas, parameterisation, chosen, noise, options or {}, mask, batch_index)
    x = yield from drive(ready.run, ready.denoiser, recording)
    return ready.finish(x).clone()  # a clone made here is no inference tensor


def one_by_one(
    denoiser: Denoiser,
    latent: Tensor,
    sigmas: Sequence[float],
    parameterisation: Parameterisation,
    solver: Solver,
    noise: NoiseSource,
    options: Mapping[str, object] | None,
    mask: Tensor | None,
    batch_index: Sequence[int] | None,
    recording: Recording | None,
) -> Generator[Tick, None, Tensor]:
    """A batch whose images must not share their steps: each is a run of its own."""
    images, masks = [], None if mask is None else fitted(mask, latent)
    for place in range(latent.shape[0]):
        image = yield from sample_steps(
            denoiser,
            latent[place : place + 1],
            sigmas,
            parameterisation,
            solver,
            noise=OneImage(noise, latent, place, batch_index),
            options=options,
            mask=None if masks is None else masks[place : place + 1, :1],
            recording=recording,
        )
        images.append(image)
    return torch.cat(images)


def sample(
    denoiser: Denoiser,
    latent: Tensor,
    sigmas: Sequence[float],
    parameterisation: Parameterisation,
    solver: Solver | str = "euler",
    *,
    noise: NoiseSource,
    options: Mapping[str, object] | None = None,
    mask: Tensor | None = None,
    batch_index: Sequence[int] | None = None,
    recording: Recording | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """`sample_steps` to its end. `is_cancelled` is asked between evaluations and ends the run with `Cancelled`."""
    steps = sample_steps(
        denoiser,
        latent,
        sigmas,
        parameterisation,
        solver,
        noise=noise,
        options=options,
        mask=mask,
        batch_index=batch_index,
        recording=recording,
    )
    while True:
        try:
            tick = next(steps)
        except StopIteration as end:
            result: Tensor = end.value
            return result
        if on_tick is not None:
            on_tick(tick)
        if is_cancelled is not None and is_cancelled():
            steps.close()
            raise Cancelled(f"cancelled after {tick.evaluations} evaluations, step {tick.step} of {tick.steps}")


def checked_sigmas(sigmas: Sequence[float], solver: Solver) -> list[float]:
    """The sigmas: finite, not negative, falling all the way; or rising all the way, for a sampler that can invert.

    A repeated sigma is a step of length zero and is left out.
    """
    kept = [float(sigmas[0])]
    rises = solver.inverts and sigmas[-1] > sigmas[0]
    for place, sigma in enumerate(sigmas):
        if not (sigma > 0 if rises else sigma >= 0) or sigma == float("inf"):
            raise BadValue(
                f"sigmas[{place}]", sigma, "a finite number above 0" if rises else "a finite number, 0 or more"
            )
        if (sigma < kept[-1]) if rises else (sigma > kept[-1]):
            bound = "at least" if rises else "at most"
            raise BadValue(f"sigmas[{place}]", sigma, f"{bound} the sigma before it, {kept[-1]:.6g}")
        if sigma != kept[-1]:
            kept.append(float(sigma))
    return kept
