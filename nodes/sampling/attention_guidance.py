"""Guidance through the transformer's attention, as parts of the model value: perturbed, smoothed, normalised."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from sigmagraph.engine.graph.node import Extra, Optional, Range, Tooltip, node
from sigmagraph.engine.models.arch.attention_changes import IdentityAttention, NormalizedAttention, SmoothedAttention
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.controlnet import in_turn
from sigmagraph.engine.models.value import Model as ModelValue
from sigmagraph.engine.sampling.caches.caching import begun
from sigmagraph.engine.sampling.caches.drift import Weigh
from sigmagraph.engine.sampling.guidance import Cfg, FrequencyDecoupled, Predict, SkipLayer
from sigmagraph.nodes.sampling.guidance_rules import Prepared
from sigmagraph.nodes.support.types import Model

__all__ = ["NODES"]

Percent = Annotated[float, Range(0.0, 1.0, step=0.001)]
Share = Annotated[float, Range(0.0, 10.0, step=0.01)]
Rescale = Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("Bring the spread back to the conditional one's.")]
Blocks = Annotated[str, Extra({"multiline": False}), Tooltip("Numbers of blocks; the middle one is a good first try.")]
BlocksBeside = Annotated[str, Extra({"multiline": False}), Optional(), Tooltip("Numbers of blocks; none: no change.")]


@dataclass(frozen=True, slots=True)
class Weakened:
    """Guides away from what the model says with attention changed in some blocks, between two shares of the way."""

    attention: IdentityAttention | SmoothedAttention
    scale: float
    start_percent: float
    end_percent: float
    rescale: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        level = model.parameterisation.levels.percent_to_sigma
        start, end = level(self.start_percent), level(self.end_percent)
        weaker = model.with_attention(self.attention).predictor
        rule = SkipLayer(weaker, guided.positive, self.scale, start, end, self.rescale)
        return replace(guided, adjust=(*guided.adjust, rule))


@dataclass(frozen=True, slots=True)
class Normalized:
    """Lets the positive side's attention be guided away from the negative text's, inside every block."""

    scale: float
    tau: float
    alpha: float

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        if self.scale == 1 or self.alpha == 0:
            return guided
        negative = guided.negative
        positive = replace(guided.positive)  # told apart from the negative even if that is it
        blocks, tokens = frozenset(range(model.spec.shape.depth)), negative.context.shape[1]
        change = NormalizedAttention(blocks, tokens, self.scale, self.tau, self.alpha)
        between = model.with_attention(change).predictor
        predict = BothTexts(guided.predict, between, positive, _joined(negative, positive))
        return replace(guided, predict=predict, positive=positive)


def _joined(negative: Conditioning, positive: Conditioning) -> Conditioning:
    """Every entry of the positive with the negative's first text in front; ControlNets read the positive's own."""

    def join(one: Conditioning) -> Conditioning:
        rows = max(len(one.context), len(negative.context))
        read = one.as_controls_read_it()
        own = {"cross_attn_controlnet": read.context, "pooled_output_controlnet": read.pooled}
        context = [in_turn(text, rows) for text in (negative.context, one.context)]
        return replace(one, context=torch.cat(context, dim=1), extra={**one.extra, **own})

    first, *rest = (join(one) for one in positive.entries)
    return replace(first, further=tuple(rest))


@dataclass(frozen=True, eq=False, slots=True)
class BothTexts:
    """The positive side by the model that is given both texts; every other by the model as it is."""

    plain: Predict
    between: Predict
    positive: Conditioning
    joined: Conditioning

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[object]) -> Sequence[Tensor]:
        others = [one for one in conditionings if one is not self.positive]
        found = iter(self.plain(x, sigma, others) if others else ())
        between, joined = self.between, [self.joined]
        return [between(x, sigma, joined)[0] if one is self.positive else next(found) for one in conditionings]

    def begin_sides(self, weigh: Weigh) -> "BothTexts":
        """The same for one run."""
        plain = begun(self.plain, lambda sigma, sides: weigh(sigma, 2)[:sides])
        return replace(self, plain=plain, between=begun(self.between, lambda sigma, sides: weigh(sigma, 2)[-sides:]))


@node("PerturbedAttentionGuidance", category="model_patches/unet")
def perturbed_attention_guidance(
    *,
    model: Model,
    scale: Annotated[float, Range(0.0, 100.0, step=0.01, round=0.01)] = 3.0,
    layers: BlocksBeside = "",
    start_percent: Annotated[float, Range(0.0, 1.0, step=0.001), Optional()] = 0.0,
    end_percent: Annotated[float, Range(0.0, 1.0, step=0.001), Optional()] = 1.0,
) -> Model:
    """Guide away from what the model says where image tokens see only the text and themselves (Ahn 2024)."""
    if not (blocks := _numbers(layers)) or scale == 0:
        return model  # ComfyUI's acts in a U-Net's middle block, and leaves SD3's picture as it is
    return _weakened(model, IdentityAttention(blocks), scale, start_percent, end_percent, 0.0)


@node("SmoothedEnergyGuidance", category="advanced/guidance")
def smoothed_energy_guidance(
    *,
    model: Model,
    layers: Blocks = "12",
    scale: Annotated[float, Range(0.0, 100.0, step=0.01)] = 3.0,
    blur_sigma: Annotated[
        float, Range(-1.0, 1000.0, step=0.1), Tooltip("In tokens of 16 pixels; -1 is the mean over the picture.")
    ] = 10.0,
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
    rescaling_scale: Rescale = 0.0,
) -> Model:
    """Guide away from what the model says where image tokens ask with blurred queries (Hong 2024)."""
    blocks = _numbers(layers)
    if not blocks or scale == 0 or blur_sigma == 0:
        return model
    change = SmoothedAttention(blocks, math.inf if blur_sigma < 0 else blur_sigma)
    return _weakened(model, change, scale, start_percent, end_percent, rescaling_scale)


@node("NAGuidance", category="advanced/guidance", display_name="Normalized Attention Guidance")
def normalized_attention_guidance(
    *,
    model: Model,
    nag_scale: Annotated[float, Range(0.0, 50.0, step=0.1), Tooltip("1 is no guidance.")] = 5.0,
    nag_alpha: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("The share of the guided features.")] = 0.5,
    nag_tau: Annotated[float, Range(1.0, 10.0, step=0.01), Tooltip("How much longer than plain ones they get.")] = 1.5,
) -> Model:
    """A negative prompt that acts in attention, at guidance scale 1 too, as for distilled models (Chen 2025)."""
    return model.with_guidance(Normalized(nag_scale, nag_tau, nag_alpha))


@node("FrequencyDecoupledGuidance", category="advanced/guidance")
def frequency_decoupled_guidance(
    *,
    model: Model,
    scale_low: Annotated[Share, Tooltip("Of low frequencies, times the guidance scale.")] = 0.5,
    scale_high: Annotated[Share, Tooltip("Of high frequencies, times the guidance scale.")] = 1.0,
    levels: Annotated[int, Range(2, 6)] = 2,
) -> Model:
    """Guidance scales of their own for coarse and fine structure (Sadat 2025, arXiv:2506.19713)."""
    return model.with_guidance(Prepared(FrequencyDecoupled(scale_low, scale_high, levels)))


def _weakened(
    model: ModelValue,
    change: IdentityAttention | SmoothedAttention,
    scale: float,
    start_percent: float,
    end_percent: float,
    rescale: float,
) -> ModelValue:
    model.with_attention(change)  # refuses blocks that are not there
    return model.with_guidance(Weakened(change, scale, start_percent, end_percent, rescale))


def _numbers(layers: str) -> frozenset[int]:
    return frozenset(int(word) for word in re.findall(r"\d+", layers))


NODES = (
    perturbed_attention_guidance,
    smoothed_energy_guidance,
    normalized_attention_guidance,
    frequency_decoupled_guidance,
)
