"""Sampling taken apart: noise, guider, sampler and sigmas come in as values of their own."""

from dataclasses import replace
from typing import Annotated

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Output, Range, Tooltip, node
from sigmagraph.engine.models.value import Model as ModelValue
from sigmagraph.engine.sampling import ComfyNoise, NoiseSource, NoNoise
from sigmagraph.engine.sampling.guidance import DualCfg, EasyCache, LazyCache, PerpNeg, Predict, ReusedPredict
from sigmagraph.nodes.support.denoising import Pair, denoised_latent, in_model_space
from sigmagraph.nodes.support.graph_names import solver_in_graph
from sigmagraph.nodes.support.kept_predictions import Unfinished
from sigmagraph.nodes.support.types import (
    Conditioning,
    Guider,
    GuiderValue,
    Latent,
    Model,
    Noise,
    Sampler,
    SamplerValue,
    Seed,
    Sigmas,
)
from sigmagraph.nodes.support.widgets import GuidanceScale, SamplerName

__all__ = ["NODES"]

PAIR = [
    Output("LATENT", "output", "The state at the last level."),
    Output("LATENT", "denoised_output", "The last estimate of the clean latent."),
]


@node("SamplerCustom", category="sampling/custom_sampling", lane="device", outputs=PAIR)
def sampler_custom(
    *,
    model: Model,
    add_noise: bool = True,
    noise_seed: Seed = 0,
    cfg: GuidanceScale = 8.0,
    positive: Conditioning,
    negative: Conditioning,
    sampler: Sampler,
    sigmas: Sigmas,
    latent_image: Latent,
    unfinished: Unfinished = None,
) -> Pair:
    """Sample with any sampler over any sigmas."""
    noise: NoiseSource = ComfyNoise(noise_seed) if add_noise else NoNoise(ComfyNoise(noise_seed))
    denoiser = model.guided(positive, negative, cfg)
    how = sampler.solver, noise, sampler.options, unfinished
    done = yield from denoised_latent(model, denoiser, latent_image, sigmas, *how)
    return done.shown((done.latent, done.estimate))


@node("SamplerCustomAdvanced", category="sampling/custom_sampling", lane="device", outputs=PAIR)
def sampler_custom_advanced(
    *,
    noise: Noise,
    guider: Guider,
    sampler: Sampler,
    sigmas: Sigmas,
    latent_image: Latent,
    unfinished: Unfinished = None,
) -> Pair:
    """Sample with any noise, guidance, sampler and sigmas."""
    model, denoiser = guider.model, guider.denoiser
    how = sampler.solver, noise, sampler.options, unfinished
    done = yield from denoised_latent(model, denoiser, latent_image, sigmas, *how)
    return done.shown((done.latent, done.estimate))


@node("KSamplerSelect", category="sampling/custom_sampling/samplers")
def ksampler_select(*, sampler_name: SamplerName = "euler") -> Sampler:
    """A sampler by name, with its usual settings; `name@2` is a later revision of it."""
    return SamplerValue(solver_in_graph(sampler_name))


@node("RandomNoise", category="sampling/custom_sampling/noise")
def random_noise(*, noise_seed: Seed = 0) -> Noise:
    """Noise from a seed, the same as everywhere else."""
    return ComfyNoise(noise_seed)


@node("DisableNoise", category="sampling/custom_sampling/noise")
def disable_noise() -> Noise:
    """No noise to start from; what a sampler draws on its way follows seed 0."""
    return NoNoise(ComfyNoise(0))


@node("AddNoise", category="_for_testing/custom_sampling/noise")
def add_noise(*, model: Model, noise: Noise, sigmas: Sigmas, latent_image: Latent) -> Latent:
    """The latent with the noise of the way from the first sigma to the last."""
    if not sigmas:
        return latent_image
    clean = in_model_space(model, latent_image.samples)
    drawn = noise.initial(clean, latent_image.batch_index)
    scale = abs(sigmas[0] - sigmas[-1]) if len(sigmas) > 1 else sigmas[0]
    noised = model.parameterisation.noised(scale, drawn, clean)
    return latent_image.with_samples(model.spec.latent_format.to_vae(noised.float()).cpu())


@node("BasicGuider", category="sampling/custom_sampling/guiders", revision=2)
def basic_guider(*, model: Model, conditioning: Conditioning) -> Guider:
    """One conditioning, no guidance."""
    on_model = model.guided(conditioning, conditioning, 1.0)  # what comes after a formula comes after one estimate too
    return GuiderValue(model, replace(on_model, combine=None))


@node("CFGGuider", category="sampling/custom_sampling/guiders")
def cfg_guider(*, model: Model, positive: Conditioning, negative: Conditioning, cfg: GuidanceScale = 8.0) -> Guider:
    """Classifier-free guidance (Ho 2022, arXiv:2207.12598)."""
    return GuiderValue(model, model.guided(positive, negative, cfg))


@node("DualCFGGuider", category="sampling/custom_sampling/guiders", revision=2)
def dual_cfg_guider(
    *,
    model: Model,
    cond1: Annotated[Conditioning, Tooltip("What the image should show.")],
    cond2: Annotated[Conditioning, Tooltip("The step between: where guidance towards cond1 starts.")],
    negative: Conditioning,
    cfg_conds: GuidanceScale = 8.0,
    cfg_cond2_negative: GuidanceScale = 8.0,
    style: Annotated[str, Options(["regular", "nested"])] = "regular",
) -> Guider:
    """Guidance in two steps: from the negative to cond2, and from there to cond1."""
    is_nested = style == "nested"
    on_model = model.guided(cond1, cond2, cfg_conds) if is_nested else model.guided(cond2, negative, cfg_cond2_negative)
    scales, rules = (cfg_conds, cfg_cond2_negative), (on_model.combine, on_model.adjust)
    return GuiderValue(model, DualCfg(_predictor(model), cond1, cond2, negative, *scales, is_nested, *rules))


@node("PerpNegGuider", category="_for_testing", experimental=True)
def perp_neg_guider(
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    empty_conditioning: Annotated[Conditioning, Tooltip("The empty prompt, encoded.")],
    cfg: GuidanceScale = 8.0,
    neg_scale: Annotated[float, Range(0.0, 100.0, step=0.01)] = 1.0,
) -> Guider:
    """Guidance that keeps of the negative only what is perpendicular to the positive (Armandpour 2023)."""
    adjust = model.guided(positive, empty_conditioning, cfg).adjust
    sides = _predictor(model), positive, negative, empty_conditioning
    return GuiderValue(model, PerpNeg(*sides, cfg, neg_scale, adjust))


def _predictor(model: ModelValue) -> Predict:
    """What a guidance of three sides asks: the model, by way of its step cache."""
    match model.step_cache:
        case EasyCache() as rule:
            return ReusedPredict(model.predict, rule.reuse(model.parameterisation))
        case LazyCache():
            raise BadValue(
                "model", "one with LazyCache", "another step cache: this guider has no guided estimate of two"
            )
        case _:
            return model.predictor


NODES = (
    sampler_custom,
    sampler_custom_advanced,
    ksampler_select,
    random_noise,
    disable_noise,
    add_noise,
    basic_guider,
    cfg_guider,
    dual_cfg_guider,
    perp_neg_guider,
)
