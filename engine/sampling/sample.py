"""From a latent to a latent: start state, mask, the run itself, and the way back.

`sample_steps` is a generator of ticks; `sample` runs it to its end.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue, Cancelled
from sigmagraph.engine.sampling.guidance import Denoiser
from sigmagraph.engine.sampling.mask import Masked, fitted
from sigmagraph.engine.sampling.noise import NoiseSource, OneImage
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.record import Recording
from sigmagraph.engine.sampling.run import Driven, Run, Tick, alone, context_of, drive_asking
from sigmagraph.engine.sampling.solver import SOLVERS, Solver, find_solver

HALF = (torch.float16, torch.bfloat16)  # latents of these are sampled in float32: the state's rounding adds up


@dataclass(frozen=True)
class Prepared:
    """A run before its first evaluation: solver with start state, denoiser with mask, and the last words."""

    run: Run
    denoiser: Denoiser
    finish: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Everything one run is made of. `latent` [B, C, H, W] is clean and in model units."""

    denoiser: Denoiser
    latent: Tensor
    sigmas: Sequence[float]
    parameterisation: Parameterisation
    solver: Solver
    noise: NoiseSource
    options: Mapping[str, object] = field(default_factory=dict)
    mask: Tensor | None = None
    batch_index: Sequence[int] | None = None

    @property
    def about(self) -> str:
        """What a recording of this run belongs to."""
        name = f"{self.solver.name}@{self.solver.revision}"
        return f"{name} {dict(self.options)} over {[*self.sigmas]} by {self.noise}"

    def images(self) -> list["Task"]:
        """The same for each image alone: for a batch whose images must not share their steps."""
        masks = None if self.mask is None else fitted(self.mask, self.latent)
        return [
            replace(
                self,
                latent=self.latent[place : place + 1],
                noise=OneImage(self.noise, self.latent, place, self.batch_index),
                mask=None if masks is None else masks[place : place + 1, :1],
                batch_index=None,
            )
            for place in range(self.latent.shape[0])
        ]

    def prepared(self) -> Prepared:
        """Noise, start state, context and mask."""
        levels, parameterisation = checked_sigmas(self.sigmas, self.solver), self.parameterisation
        noise = self.noise.initial(self.latent, self.batch_index)
        latent, noise = (one.float() if one.dtype in HALF else one for one in (self.latent, noise))
        x = parameterisation.start(levels[0], noise, latent)
        context = context_of(self.solver, x, levels, parameterisation, self.noise, self.batch_index)
        run = Run(self.solver, x, levels, context, self.options)
        if self.mask is None:
            return Prepared(run, self.denoiser, lambda x: parameterisation.released(levels[-1], x))
        kept_noise = self.noise.mask_noise(x) if self.solver.masks_with_next_seed else noise
        masked = Masked(
            self.denoiser,
            fitted(self.mask, latent),
            latent,
            lambda sigma: parameterisation.noised(sigma, kept_noise, latent),
        )

        def finish(x: Tensor) -> Tensor:
            composed = masked.blended(x, levels[-1]) if self.solver.composes_mask else x
            return parameterisation.released(levels[-1], composed)

        return Prepared(run, masked, finish)

    def steps(self, recording: Recording | None) -> Driven:
        """Run it; the return value is the final latent."""
        places, images = self.batch_index, self.latent.shape[0]
        if places is not None and (len(places) != images or min(places, default=0) < 0):
            raise BadValue("batch_index", list(places), f"a place from 0 for each of the latent's {images} images")
        if self.solver.splits_batch and self.latent.shape[0] > 1:
            finals = []
            for task in self.images():
                final = yield from task.steps(recording)
                finals.append(final)
            return torch.cat(finals)
        with torch.inference_mode():
            ready = self.prepared()
        x = yield from drive_asking(ready.run, ready.denoiser, recording)
        return ready.finish(x).clone()  # a clone made here is no inference tensor


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
    as it goes and then extended. A schedule without a step or without noise returns the latent as it is.
    """
    return alone(
        ask_steps(
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
    )


def ask_steps(
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
) -> Driven:
    """As `sample_steps`, but each `Ask` it yields must be sent its estimates: for whoever predicts for several runs."""
    if len(sigmas) < 2 or not any(sigmas):
        return latent.clone()
    chosen = find_solver(solver) if isinstance(solver, str) else solver
    task = Task(denoiser, latent, sigmas, parameterisation, chosen, noise, options or {}, mask, batch_index)
    if recording is not None:
        recording.belongs_to(task.about)
    return (yield from task.steps(recording))


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
    rises = sigmas[-1] > sigmas[0] and math.isfinite(sigmas[-1])
    if rises and not solver.inverts:
        able = ", ".join(sorted(name for name, one in SOLVERS.items() if one.inverts))
        raise BadValue(
            "sigmas", f"{sigmas[0]:.6g} rising to {sigmas[-1]:.6g}", f"falling ones: of samplers only {able} go up"
        )
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
