"""The plain samplers: everything a run needs on one node."""

from typing import Annotated

from engine.errors import BadValue
from engine.graph.node import Options, Output, Range, Tooltip, node
from engine.sampling import Cfg, Comfy, find_schedule, find_solver, run_sigmas, sd3
from nodes.denoising import Sampling, denoised_latent, sampler_names, schedule_names
from nodes.types import Conditioning, Latent, Model, Seed

__all__ = ["NODES"]

OLD_GRAPHS = 1  # the revision that a bare sampler or schedule name means: what graphs from elsewhere were made with

Steps = Annotated[int, Range(1, 10_000), Tooltip("More steps follow the path more closely and take longer.")]
GuidanceScale = Annotated[
    float,
    Range(0.0, 100.0, step=0.1, round=0.01),
    Tooltip("How strongly the image follows the prompt; 1 leaves the negative out."),
]
SamplerName = Annotated[
    str, Options(sampler_names), Tooltip("The rule of each step; `sigmagraph samplers` lists them.")
]
ScheduleName = Annotated[str, Options(schedule_names), Tooltip("How the noise levels are spread over the steps.")]
Fraction = Annotated[
    float, Range(0.0, 1.0, step=0.01), Tooltip("The part of the way that is gone; below 1 the latent shows through.")
]


@node(
    "KSampler", category="sampling", lane="device", outputs=[Output("LATENT", tooltip="The latent without its noise.")]
)
def ksampler(
    *,
    model: Annotated[Model, Tooltip("What denoises.")],
    seed: Seed = 0,
    steps: Steps = 20,
    cfg: GuidanceScale = 8.0,
    sampler_name: SamplerName = "euler",
    scheduler: ScheduleName = "simple",
    positive: Annotated[Conditioning, Tooltip("What the image should show.")],
    negative: Annotated[Conditioning, Tooltip("What it should not show.")],
    latent_image: Annotated[Latent, Tooltip("What to start from; blank for a new image.")],
    denoise: Fraction = 1.0,
) -> Sampling:
    """Noise the latent, then remove the noise step by step."""
    solver = find_solver(sampler_name, OLD_GRAPHS)
    schedule = find_schedule(scheduler, OLD_GRAPHS)
    sigmas = run_sigmas(schedule, model.parameterisation.levels, steps, denoise, solver.drops_penultimate)
    guided = Cfg(model.predict, positive, negative, cfg)
    result, _ = yield from denoised_latent(model, guided, latent_image, sigmas, solver, Comfy(seed))
    return result


@node("ModelSamplingSD3", category="advanced/model")
def model_sampling_sd3(
    *,
    model: Model,
    shift: Annotated[float, Range(0.0, 100.0, step=0.01), Tooltip("Above 1 more steps go to high noise.")] = 3.0,
) -> Model:
    """The same model with another shift of its noise levels (Esser 2024, arXiv:2403.03206, eq. 23)."""
    if shift == 0:
        raise BadValue("shift", shift, "a number above 0")
    return model.with_parameterisation(sd3(shift))


NODES = (ksampler, model_sampling_sd3)
