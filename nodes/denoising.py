"""From a latent through a sampler to a latent: the way every sampling node goes. Knows no node and no wire name."""

import math
from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import BadValue
from engine.graph.node import Progress
from engine.models.value import Model
from engine.sampling import SCHEDULES, SOLVERS, Denoiser, NoiseSource, Solver, sample_steps
from nodes.types import LatentValue

__all__ = ["Sampling", "denoised_latent", "sampler_names", "schedule_names"]

Sampling = Generator[Progress, None, LatentValue]


def sampler_names() -> list[str]:
    """Every sampler; a bare name is revision 1, as existing graphs mean it, `name@2` is a later one."""
    return _with_revisions({name: solver.revision for name, solver in SOLVERS.items()})


def schedule_names() -> list[str]:
    """Every schedule, with revisions as for samplers."""
    return _with_revisions({name: schedule.revision for name, schedule in SCHEDULES.items()})


def _with_revisions(newest: Mapping[str, int]) -> list[str]:
    later = [f"{name}@{revision}" for name, last in newest.items() for revision in range(2, last + 1)]
    return [*newest, *later]


def denoised_latent(
    model: Model,
    denoiser: Denoiser,
    latent: LatentValue,
    sigmas: Sequence[float],
    solver: Solver,
    noise: NoiseSource,
    options: Mapping[str, object] | None = None,
) -> Generator[Progress, None, tuple[LatentValue, LatentValue]]:
    """Run `solver` over `sigmas`; the last state and the last estimate of the clean latent, both in VAE units.

    An empty schedule gives the latent back as it is. A latent of nothing but zeros is not shifted into model space.
    """
    if len(sigmas) < 2:
        return latent, latent
    to_vae = model.spec.latent_format.to_vae
    start = _in_model_space(model, latent.samples)
    steps = sample_steps(
        denoiser,
        start,
        sigmas,
        model.parameterisation,
        solver,
        noise=noise,
        options=options,
        mask=latent.noise_mask,
        batch_index=latent.batch_index,
    )
    estimate = start
    try:
        while True:
            tick = next(steps)
            estimate = tick.denoised
            yield Progress(tick.step, tick.steps, preview=tick.denoised)
    except StopIteration as end:
        final: Tensor = end.value
    finally:
        steps.close()
    return tuple(latent.with_samples(to_vae(each.float()).cpu()) for each in (final, estimate))  # type: ignore[return-value]  # two in, two out


def _in_model_space(model: Model, samples: Tensor) -> Tensor:
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
