"""The plain samplers: everything a run needs on one node."""

from typing import Annotated, Literal

from sigmagraph.engine.graph.node import Options, Output, Range, Tooltip, node
from sigmagraph.engine.sampling import ComfyNoise, NoNoise, run_sigmas, step_range
from sigmagraph.nodes.support.denoising import LatentSteps, denoised_latent
from sigmagraph.nodes.support.graph_names import schedule_in_graph, solver_in_graph
from sigmagraph.nodes.support.kept_predictions import Unfinished
from sigmagraph.nodes.support.types import Conditioning, Latent, Model, Seed
from sigmagraph.nodes.support.widgets import Fraction, GuidanceScale, SamplerName, ScheduleName, Steps

__all__ = ["NODES"]

RESULT = [Output("LATENT", tooltip="The latent without its noise.")]
Denoised = Annotated[Model, Tooltip("What denoises.")]
Positive = Annotated[Conditioning, Tooltip("What the image should show.")]
Negative = Annotated[Conditioning, Tooltip("What it should not show.")]
Start = Annotated[Latent, Tooltip("What to start from; blank for a new image.")]
StepNumber = Annotated[int, Range(0, 10_000)]
EnableFirst = Annotated[Literal["enable", "disable"], Options(["enable", "disable"])]
DisableFirst = Annotated[Literal["disable", "enable"], Options(["disable", "enable"])]


@node("KSampler", category="sampling", lane="device", outputs=RESULT)
def ksampler(
    *,
    model: Denoised,
    seed: Seed = 0,
    steps: Steps = 20,
    cfg: GuidanceScale = 8.0,
    sampler_name: SamplerName = "euler",
    scheduler: ScheduleName = "simple",
    positive: Positive,
    negative: Negative,
    latent_image: Start,
    denoise: Fraction = 1.0,
    unfinished: Unfinished = None,
) -> LatentSteps:
    """Noise the latent, then remove the noise step by step."""
    solver, schedule = solver_in_graph(sampler_name), schedule_in_graph(scheduler)
    sigmas = run_sigmas(schedule, model.parameterisation.levels, steps, denoise, solver.drops_penultimate)
    denoiser = model.guided(positive, negative, cfg)
    noise = ComfyNoise(seed)
    done = yield from denoised_latent(model, denoiser, latent_image, sigmas, solver, noise, kept=unfinished)
    return done.shown(done.latent)


@node("KSamplerAdvanced", category="sampling", display_name="KSampler (Advanced)", lane="device", outputs=RESULT)
def ksampler_advanced(
    *,
    model: Denoised,
    add_noise: EnableFirst = "enable",
    noise_seed: Seed = 0,
    steps: Steps = 20,
    cfg: GuidanceScale = 8.0,
    sampler_name: SamplerName = "euler",
    scheduler: ScheduleName = "simple",
    positive: Positive,
    negative: Negative,
    latent_image: Start,
    start_at_step: StepNumber = 0,
    end_at_step: StepNumber = 10_000,
    return_with_leftover_noise: DisableFirst = "disable",
    unfinished: Unfinished = None,
) -> LatentSteps:
    """A part of a run: from one step to another, with or without noise at its start and at its end."""
    solver, schedule = solver_in_graph(sampler_name), schedule_in_graph(scheduler)
    whole = run_sigmas(schedule, model.parameterisation.levels, steps, drops_penultimate=solver.drops_penultimate)
    sigmas = step_range(whole, start_at_step, end_at_step, return_with_leftover_noise == "enable")
    noise = ComfyNoise(noise_seed) if add_noise == "enable" else NoNoise(ComfyNoise(noise_seed))
    denoiser = model.guided(positive, negative, cfg)
    done = yield from denoised_latent(model, denoiser, latent_image, sigmas, solver, noise, kept=unfinished)
    return done.shown(done.latent)


NODES = (ksampler, ksampler_advanced)
