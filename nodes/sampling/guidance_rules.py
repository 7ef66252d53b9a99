"""Further rules of guidance, and of the mask of inpainting, as parts of the model value."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from sigmagraph.engine.graph.node import Extra, Optional, Output, Range, Tooltip, node
from sigmagraph.engine.models.conditioning import Conditioning as ConditioningValue
from sigmagraph.engine.models.value import Model as ModelValue
from sigmagraph.engine.sampling.caches.caching import begun
from sigmagraph.engine.sampling.caches.drift import Weigh
from sigmagraph.engine.sampling.guidance import (
    Adjustment,
    Cfg,
    EpsilonScaling,
    FrequencyScaling,
    Mahiro,
    NormBound,
    Operated,
    Predict,
    Preparation,
    Renorm,
    ScaleRange,
    ScoreRescaling,
    SkipLayer,
    TangentialDamping,
)
from sigmagraph.engine.sampling.mask import DifferentialMask, MaskRule
from sigmagraph.nodes.support.types import Conditioning, Guider, GuiderValue, LatentOperation, Model
from sigmagraph.nodes.support.widgets import GuidanceScale

__all__ = ["NODES"]

Percent = Annotated[float, Range(0.0, 1.0, step=0.001)]
Share = Annotated[float, Range(0.0, 1.0, step=0.01)]
Blocks = Annotated[str, Extra({"multiline": False}), Tooltip("Numbers of blocks.")]
PATCHED = (Output("MODEL", "patched_model"),)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Adds a change of the guided estimate."""

    adjustment: Adjustment

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        return replace(guided, adjust=(*guided.adjust, self.adjustment))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Adds a change of both estimates."""

    preparation: Preparation

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        return replace(guided, prepare=(*guided.prepare, self.preparation))


@dataclass(frozen=True, slots=True)
class Leaning:
    """Adds Mahiro's mean, which needs the scale."""

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        return replace(guided, adjust=(*guided.adjust, Mahiro(guided.scale)))


@dataclass(frozen=True, slots=True)
class Rescaling:
    """Adds the change of temperature, which needs the model's signal at each level."""

    k: float
    deviation: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        rule = ScoreRescaling(model.parameterisation.process, self.k, self.deviation)
        return replace(guided, adjust=(*guided.adjust, rule))


@dataclass(frozen=True, slots=True)
class Renormed:
    """Replaces the formula by one whose norm is bounded."""

    below: float
    factor: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        return replace(guided, combine=Renorm(guided.scale, self.below, self.factor))


@dataclass(frozen=True, slots=True)
class SkippingBlocks:
    """Adds skip-layer guidance between two shares of the way, for blocks of two streams and of one."""

    double: tuple[int, ...]
    single: tuple[int, ...]
    scale: float
    start_percent: float
    end_percent: float
    rescale: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        level = model.parameterisation.levels.percent_to_sigma
        skipping = model.with_skipped_layers(self.double, self.single).predictor
        start, end = level(self.start_percent), level(self.end_percent)
        rule = SkipLayer(skipping, guided.positive, self.scale, start, end, self.rescale)
        return replace(guided, adjust=(*guided.adjust, rule))


@dataclass(frozen=True, slots=True)
class SkippingUncond:
    """Leaves blocks out of the unconditional side alone, between two shares of the way."""

    double: tuple[int, ...]
    single: tuple[int, ...]
    start_percent: float
    end_percent: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        level = model.parameterisation.levels.percent_to_sigma
        skipping = model.with_skipped_layers(self.double, self.single).predictor
        start, end = level(self.start_percent), level(self.end_percent)
        predict = WeakerUncond(guided.predict, skipping, start, end, guided.negative)
        return replace(guided, predict=predict, positive=told_apart(guided))


def told_apart(guided: Cfg) -> ConditioningValue:
    """The positive side, as a value that is not the negative's too: rules know a side by its value."""
    positive: ConditioningValue = guided.positive
    return replace(positive) if positive is guided.negative else positive


@dataclass(frozen=True, eq=False, slots=True)
class WeakerUncond:
    """The unconditional side from a model with blocks left out."""

    whole: Predict
    skipping: Predict
    start: float
    end: float
    negative: object

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[object]) -> Sequence[Tensor]:
        if not self.start >= sigma >= self.end:
            return self.whole(x, sigma, conditionings)
        others = [one for one in conditionings if one is not self.negative]
        found = iter(self.whole(x, sigma, others) if others else ())
        skipping, negative = self.skipping, self.negative
        return [skipping(x, sigma, [one])[0] if one is negative else next(found) for one in conditionings]

    def begin_sides(self, weigh: Weigh) -> "WeakerUncond":
        """The same for one run."""
        skipping = begun(self.skipping, lambda sigma, sides: weigh(sigma, 2)[:sides])
        return replace(self, whole=begun(self.whole, lambda sigma, sides: weigh(sigma, 2)[-sides:]), skipping=skipping)


@dataclass(frozen=True, slots=True)
class Differential:
    """The mask's values are shares of the way, from where the run begins to where it ends."""

    strength: float

    def __call__(self, model: ModelValue, sigmas: Sequence[float]) -> MaskRule:
        levels = model.parameterisation.levels
        first, last = (levels.timestep(sigma) for sigma in (sigmas[0], max(sigmas[-1], levels.sigma_min)))

        def share(sigma: float) -> float:
            return (levels.timestep(sigma) - last) / (first - last)

        return DifferentialMask(share, self.strength)


@dataclass(frozen=True, slots=True)
class Overridden:
    """Sets the scale between two shares of the way; of several, the last one counts."""

    scale: float
    start_percent: float
    end_percent: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        level = model.parameterisation.levels.percent_to_sigma
        part = ScaleRange(level(self.start_percent), level(self.end_percent), self.scale)
        return replace(guided, scales=(*guided.scales, part))


@node("CFGOverride", category="advanced/guidance", display_name="CFG Override")
def cfg_override(
    *,
    model: Model,
    cfg: Annotated[float, Range(0.0, 100.0, step=0.1)] = 1.0,
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
) -> Model:
    """Another guidance scale for a part of the way; where several overlap, the one nearest the sampler counts."""
    return model.with_guidance(Overridden(cfg, start_percent, end_percent))


@node("DifferentialDiffusion", category="_for_testing", display_name="Differential Diffusion", experimental=True)
def differential_diffusion(
    *, model: Model, strength: Annotated[float, Optional(), Range(0.0, 1.0, step=0.01)] = 1.0
) -> Model:
    """Inpaint each place for the part of the way that the mask's value says (Levin 2023, arXiv:2306.00950)."""
    return replace(model, mask_change=Differential(strength))


@node("CFGNorm", category="advanced/guidance", experimental=True, outputs=PATCHED)
def cfg_norm(*, model: Model, strength: Annotated[float, Range(0.0, 100.0, step=0.01)] = 1.0) -> Model:
    """Take back what guidance adds to the length of each place's vector."""
    return model.with_guidance(Adjusted(NormBound(strength)))


@node("TCFG", category="advanced/guidance", display_name="Tangential Damping CFG", outputs=PATCHED)
def tcfg(*, model: Model) -> Model:
    """Keep of the unconditional score what lies along both sides' main direction (Kwon 2025, arXiv:2503.18137)."""
    return model.with_guidance(Prepared(TangentialDamping()))


@node(
    "Mahiro",
    category="_for_testing",
    display_name="Mahiro is so cute that she deserves a better guidance function!! (。・ω・。)",
    experimental=True,
    outputs=PATCHED,
)
def mahiro(*, model: Model) -> Model:
    """Lean on the positive prompt's direction where both prompts point the same way."""
    return model.with_guidance(Leaning())


@node("FreSca", category="_for_testing", display_name="FreSca", experimental=True)
def fresca(
    *,
    model: Model,
    scale_low: Annotated[float, Range(0, 10, step=0.01), Tooltip("Of low frequencies.")] = 1.0,
    scale_high: Annotated[float, Range(0, 10, step=0.01), Tooltip("Of high frequencies.")] = 1.25,
    freq_cutoff: Annotated[int, Range(1, 10000, step=1), Tooltip("Frequencies below this one are low.")] = 20,
) -> Model:
    """Scale low and high frequencies of the guidance apart (Huang 2025, arXiv:2504.02154)."""
    return model.with_guidance(Prepared(FrequencyScaling(scale_low, scale_high, freq_cutoff)))


@node("Epsilon Scaling", category="model_patches/unet")
def epsilon_scaling(
    *, model: Model, scaling_factor: Annotated[float, Range(0.5, 1.5, step=0.001, display="number")] = 1.005
) -> Model:
    """Divide the predicted noise, against exposure bias (Ning 2024, arXiv:2308.15321)."""
    return model.with_guidance(Adjusted(EpsilonScaling(scaling_factor)))


@node(
    "TemporalScoreRescaling",
    category="model_patches/unet",
    display_name="TSR - Temporal Score Rescaling",
    outputs=PATCHED,
)
def temporal_score_rescaling(
    *,
    model: Model,
    tsr_k: Annotated[float, Range(0.01, 100.0, step=0.01), Tooltip("Below 1 more detail, above 1 smoother.")] = 0.95,
    tsr_sigma: Annotated[float, Range(0.01, 100.0, step=0.01), Tooltip("The larger, the earlier it acts.")] = 1.0,
) -> Model:
    """Pictures as of another temperature: the predicted noise is scaled (Xu 2025, arXiv:2510.01184)."""
    return model.with_guidance(Rescaling(tsr_k, tsr_sigma))


@node("RenormCFG", category="advanced/model")
def renorm_cfg(
    *,
    model: Model,
    cfg_trunc: Annotated[float, Range(0.0, 100.0, step=0.01), Tooltip("Guide below this noise level.")] = 100,
    renorm_cfg: Annotated[float, Range(0.0, 100.0, step=0.01), Tooltip("0 does not bound the norm.")] = 1.0,
) -> Model:
    """Bound the guided estimate's norm by a multiple of the conditional one's."""
    return model.with_guidance(Renormed(cfg_trunc, renorm_cfg))


@node("LatentApplyOperationCFG", category="latent/advanced/operations", experimental=True)
def latent_apply_operation_cfg(*, model: Model, operation: LatentOperation) -> Model:
    """Change by an operation what guidance adds, before it is scaled."""
    return model.with_guidance(Prepared(Operated(operation)))


@node("DualModelGuider", category="sampling/custom_sampling/guiders", display_name="Dual Model CFG Guider")
def dual_model_guider(
    *,
    model: Model,
    positive: Conditioning,
    cfg: GuidanceScale = 4.0,
    model_negative: Model | None = None,
    negative: Conditioning | None = None,
) -> Guider:
    """Guidance of one model by another: each predicts one side. Without a negative text its side has none at all."""
    guided = model.guided(positive, positive.zeroed() if negative is None else negative, cfg)
    if model_negative is not None:
        guided = replace(guided, predict=TwoModels(model_negative.predictor, guided.predict))
    return GuiderValue(model, guided)


@dataclass(frozen=True, eq=False, slots=True)
class TwoModels:
    """The unconditional side, which comes first, from one model, and the other from another."""

    first: Predict
    second: Predict

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[object]) -> Sequence[Tensor]:
        if len(conditionings) < 2:
            return self.second(x, sigma, conditionings)
        return [*self.first(x, sigma, conditionings[:1]), *self.second(x, sigma, conditionings[1:])]

    def begin_sides(self, weigh: Weigh) -> "TwoModels":
        """The same for one run."""
        first = begun(self.first, lambda sigma, sides: weigh(sigma, 2)[:sides])
        return TwoModels(first, begun(self.second, lambda sigma, sides: weigh(sigma, 2)[-sides:]))


@node("SkipLayerGuidanceDiT", category="advanced/guidance", experimental=True)
def skip_layer_guidance_dit(
    *,
    model: Model,
    double_layers: Blocks = "7, 8, 9",
    single_layers: Blocks = "7, 8, 9",
    scale: Annotated[float, Range(0.0, 10.0, step=0.1)] = 3.0,
    start_percent: Percent = 0.01,
    end_percent: Percent = 0.15,
    rescaling_scale: Annotated[float, Range(0.0, 10.0, step=0.01)] = 0.0,
) -> Model:
    """Guide away from what the model predicts with some blocks left out; SD3 has blocks of two streams only."""
    double, single = _numbers(double_layers), _numbers(single_layers)
    if not double and not single:
        return model
    model.with_skipped_layers(double, single)  # refuses blocks that are not there
    rule = SkippingBlocks(double, single, scale, start_percent, end_percent, rescaling_scale)
    return model.with_guidance(rule)


@node("SkipLayerGuidanceDiTSimple", category="advanced/guidance", experimental=True)
def skip_layer_guidance_dit_simple(
    *,
    model: Model,
    double_layers: Blocks = "7, 8, 9",
    single_layers: Blocks = "7, 8, 9",
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
) -> Model:
    """Leave some blocks out of the unconditional side; SD3 has blocks of two streams only."""
    double, single = _numbers(double_layers), _numbers(single_layers)
    if not double and not single:
        return model
    model.with_skipped_layers(double, single)  # refuses blocks that are not there
    return model.with_guidance(SkippingUncond(double, single, start_percent, end_percent))


def _numbers(layers: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", layers))


NODES = (
    cfg_override,
    dual_model_guider,
    differential_diffusion,
    cfg_norm,
    tcfg,
    mahiro,
    fresca,
    epsilon_scaling,
    temporal_score_rescaling,
    renorm_cfg,
    latent_apply_operation_cfg,
    skip_layer_guidance_dit,
    skip_layer_guidance_dit_simple,
)
