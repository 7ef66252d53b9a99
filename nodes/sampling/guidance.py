"""How a model is to be guided, as part of the model value: what samplers make of its two predictions."""

import re
from dataclasses import dataclass, replace
from typing import Annotated

from sigmagraph.engine.graph.node import Extra, Output, Range, Tooltip, node
from sigmagraph.engine.models.conditioning import Conditioning as ConditioningValue
from sigmagraph.engine.models.value import Model as ModelValue
from sigmagraph.engine.sampling.guidance import (
    ApgPreparation,
    Cfg,
    CfgZeroStarDenoised,
    PerpNegCombination,
    RescaledCfg,
    SkipLayer,
)
from sigmagraph.nodes.support.types import Conditioning, Model

__all__ = ["NODES"]

Percent = Annotated[float, Range(0.0, 1.0, step=0.001)]


@dataclass(frozen=True, slots=True)
class Rescaled:
    """Replaces the formula by the one that rescales; of several formulas the last one set counts."""

    share: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        return replace(guided, combine=RescaledCfg(guided.scale, self.share))


@dataclass(frozen=True, slots=True)
class SkippingLayers:
    """Adds skip-layer guidance between two levels."""

    layers: tuple[int, ...]
    scale: float
    start: float
    end: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        skipping = model.with_skipped_layers(self.layers).predictor
        skip = SkipLayer(skipping, guided.positive, self.scale, self.start, self.end)
        return replace(guided, adjust=(*guided.adjust, skip))


@dataclass(frozen=True, slots=True)
class Projected:
    """Projects the difference before the formula sees it."""

    eta: float
    norm_threshold: float
    momentum: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        projection = ApgPreparation(self.eta, self.norm_threshold, self.momentum)
        return replace(guided, prepare=(*guided.prepare, projection))


@dataclass(frozen=True, slots=True)
class ZeroStar:
    """Fits the unconditional estimate, after the formula."""

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        return replace(guided, adjust=(*guided.adjust, CfgZeroStarDenoised(guided.scale)))


@dataclass(frozen=True, eq=False, slots=True)
class Perpendicular:
    """Replaces the formula by Perp-Neg's."""

    empty: ConditioningValue
    negative_scale: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        rule = PerpNegCombination(model.predictor, self.empty, guided.scale, self.negative_scale)
        return replace(guided, combine=rule)


@node("RescaleCFG", category="advanced/model", revision=2)
def rescale_cfg(
    *,
    model: Model,
    multiplier: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("0 is plain guidance.")] = 0.7,
) -> Model:
    """Bring the spread of guided predictions back to that of unguided ones (Lin 2023, arXiv:2305.08891)."""
    return model.with_guidance(Rescaled(multiplier))


@node("SkipLayerGuidanceSD3", category="advanced/guidance", revision=2, experimental=True)
def skip_layer_guidance_sd3(
    *,
    model: Model,
    layers: Annotated[str, Extra({"multiline": False}), Tooltip("Numbers of blocks.")] = "7, 8, 9",
    scale: Annotated[float, Range(0.0, 10.0, step=0.1)] = 3.0,
    start_percent: Percent = 0.01,
    end_percent: Percent = 0.15,
) -> Model:
    """Guide away from what the model predicts with some blocks left out, for a part of the way (SD3.5 Medium)."""
    named = [int(word) for word in re.findall(r"\d+", layers)]
    chosen = tuple(layer for layer in named if layer < model.spec.shape.depth)  # others skip nothing, as in ComfyUI
    level = model.parameterisation.levels.percent_to_sigma  # of the model as it is here: a later shift moves neither
    change = SkippingLayers(chosen, scale, level(start_percent), level(end_percent))
    return model.with_guidance(change) if named else model


@node("APG", category="sampling/custom_sampling", revision=2, display_name="Adaptive Projected Guidance")
def apg(
    *,
    model: Model,
    eta: Annotated[float, Range(-10.0, 10.0, step=0.01), Tooltip("The share of the parallel part; 1 is plain.")] = 1.0,
    norm_threshold: Annotated[float, Range(0.0, 50.0, step=0.1), Tooltip("Bounds the difference; 0 does not.")] = 5.0,
    momentum: Annotated[float, Range(-5.0, 1.0, step=0.01), Tooltip("Mixes earlier differences in.")] = 0.0,
) -> Model:
    """Guide less along the prediction itself, which oversaturates (Sadat 2024, arXiv:2410.02416)."""
    return model.with_guidance(Projected(eta, norm_threshold, momentum))


@node("CFGZeroStar", category="advanced/guidance", revision=2, outputs=[Output("MODEL", "patched_model")])
def cfg_zero_star(*, model: Model) -> Model:
    """Fit the negative's velocity to the positive's before guiding (Fan 2025, arXiv:2503.18886)."""
    return model.with_guidance(ZeroStar())


@node(
    "PerpNeg",
    category="_for_testing",
    display_name="Perp-Neg (DEPRECATED by PerpNegGuider)",
    deprecated=True,
    experimental=True,
)
def perp_neg(
    *,
    model: Model,
    empty_conditioning: Annotated[Conditioning, Tooltip("The empty prompt, encoded.")],
    neg_scale: Annotated[float, Range(0.0, 100.0, step=0.01)] = 1.0,
) -> Model:
    """Keep of the negative only what is perpendicular to the positive (Armandpour 2023, arXiv:2304.04968)."""
    return model.with_guidance(Perpendicular(empty_conditioning, neg_scale))


NODES = (rescale_cfg, skip_layer_guidance_sd3, apg, cfg_zero_star, perp_neg)
