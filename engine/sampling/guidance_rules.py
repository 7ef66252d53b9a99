"""The rules guidance is made of: combinations (APG, CFG-Zero*), adjustments (rescale, skip-layer), three-way guidance.

Each with neutral parameters is plain CFG bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.sampling.guidance import Adjustment, Estimates, Linear, Predict
from sigmagraph.engine.sampling.solver import Prediction


def _axes(x: Tensor) -> tuple[int, ...]:
    """All axes of one sample."""
    return tuple(range(1, x.ndim))


@dataclass(frozen=True)
class Rescale:
    """Bring the guided estimate's spread in v-space back to the conditional one's (Lin 2023, arXiv:2305.08891, eq. 15).

    v-space is that of a state with alpha = 1, whatever the model's. `share` 0 changes nothing.
    """

    share: float = 0.7

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        if self.share == 0 or guided is known.cond:
            return guided
        power = known.sigma**2 + 1
        base, unit = known.x / power, math.sqrt(power) / known.sigma
        v_cond, v_guided = (base - known.cond) * unit, (base - guided) * unit
        ratio = v_cond.std(dim=_axes(guided), keepdim=True) / v_guided.std(dim=_axes(guided), keepdim=True)
        return base - v_guided * (ratio * self.share + (1 - self.share)) / unit


@dataclass(frozen=True)
class SkipLayer:
    """D + scale (C - C_skip): away from what the model says with some layers left out (SD3.5's skip-layer guidance).

    `predict` is the model with those layers skipped; it is asked only between the sigmas `start` and `end`.
    `rescale` pulls the result's spread (of the whole tensor) back to the conditional one's.
    """

    predict: Predict
    positive: Any
    scale: float = 3.0
    start: float = math.inf
    end: float = 0.0
    rescale: float = 0.0

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        if self.scale == 0 or not self.start >= known.sigma >= self.end:
            return guided
        skipped = self.predict(known.x, known.sigma, [self.positive])[0]
        moved = guided + (known.cond - skipped) * self.scale
        if self.rescale == 0:
            return moved
        return moved * (known.cond.std() / moved.std() * self.rescale + (1 - self.rescale))


@dataclass
class Apg:
    """Adaptive projected guidance (Sadat 2024, arXiv:2410.02416): less of the part of C - U that is parallel to C.

    `eta` is the share of the parallel part kept, `norm_threshold` bounds the difference's norm per sample (0: no
    bound), `momentum` (negative in the paper) mixes past differences in. Neutral: 1, 0, 0.
    """

    scale: float
    eta: float = 0.0
    norm_threshold: float = 0.0
    momentum: float = 0.0
    memory: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def is_neutral(self) -> bool:
        """At scale 1 nothing is added to C."""
        return math.isclose(self.scale, 1.0)

    def remember(self, memory: Tensor) -> None:
        """Go on from this running difference."""
        self.memory = memory

    def __call__(self, known: Estimates) -> Tensor:
        if (self.eta, self.norm_threshold, self.momentum) == (1.0, 0.0, 0.0):
            return Linear(self.scale)(known)
        difference = known.cond - known.uncond
        if self.momentum != 0:
            difference = difference if self.memory is None else difference + self.memory * self.momentum
            self.memory = difference
        axes = _axes(difference)
        if self.norm_threshold > 0:
            norm: Tensor = torch.linalg.vector_norm(difference, dim=axes, keepdim=True)
            difference = difference * (self.norm_threshold / norm).clamp(max=1.0)
        unit: Tensor = known.cond / torch.linalg.vector_norm(known.cond, dim=axes, keepdim=True)
        parallel: Tensor = unit * (difference * unit).sum(dim=axes, keepdim=True)
        return known.cond + (difference - parallel + parallel * self.eta) * (self.scale - 1)


@dataclass(frozen=True)
class CfgZeroStar:
    """CFG-Zero* (Fan 2025, arXiv:2503.18886): the unconditional velocity is first fitted to the conditional one.

    v = (x - D) / sigma; v_U is scaled by <v_C, v_U> / <v_U, v_U> per sample. At levels of `zero_from` and above the
    velocity is zero. Neutral: `is_fitted` off, `zero_from` infinite.
    """

    scale: float
    is_fitted: bool = True
    zero_from: float = math.inf

    @property
    def is_neutral(self) -> bool:
        """At scale 1 it is C, unless velocities are zeroed."""
        return math.isclose(self.scale, 1.0) and math.isinf(self.zero_from)

    def __call__(self, known: Estimates) -> Tensor:
        if known.sigma >= self.zero_from:
            return known.x
        if not self.is_fitted:
            return Linear(self.scale)(known)
        v_cond, v_uncond = (known.x - known.cond) / known.sigma, (known.x - known.uncond) / known.sigma
        axes = _axes(v_cond)
        overlap, power = ((v_cond * v_uncond).sum(axes, keepdim=True), (v_uncond * v_uncond).sum(axes, keepdim=True))
        fitted = v_uncond * (overlap / (power + 1e-8))
        return known.x - (fitted + (v_cond - fitted) * self.scale) * known.sigma


@dataclass(frozen=True)
class PerpNegCombination:
    """Perp-Neg as a combination of CFG's two sides: the empty prompt, E, is asked about in an evaluation of its own."""

    predict: Predict
    empty: Any
    scale: float
    negative_scale: float = 1.0

    @property
    def is_neutral(self) -> bool:
        """At scale 1 the negative still counts, unless its own scale is 0."""
        return math.isclose(self.scale, 1.0) and self.negative_scale == 0

    def __call__(self, known: Estimates) -> Tensor:
        empty = self.predict(known.x, known.sigma, [self.empty])[0]
        away = known.uncond - empty
        return empty + _without_parallel(known.cond - empty, away, self.negative_scale) * self.scale


@dataclass(frozen=True)
class PerpNeg:
    """Perp-Neg (Armandpour 2023, arXiv:2304.04968): of the negative prompt, only what is perpendicular to the positive.

    E is the empty prompt's estimate: E + scale ((P - E) - negative_scale perp(N - E)). With `negative_scale` 0 it is
    CFG against the empty prompt.
    """

    predict: Predict
    positive: Any
    negative: Any
    empty: Any
    scale: float = 8.0
    negative_scale: float = 1.0
    adjust: Sequence[Adjustment] = field(default=())

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        if self.negative_scale == 0:
            empty, positive = self.predict(x, sigma, [self.empty, self.positive])
            towards = positive - empty
        else:
            negative, positive, empty = self.predict(x, sigma, [self.negative, self.positive, self.empty])
            towards = _without_parallel(positive - empty, negative - empty, self.negative_scale)
        guided, known = empty + towards * self.scale, Estimates(x, sigma, positive, empty)
        for adjustment in self.adjust:
            guided = adjustment(guided, known)
        return Prediction(guided, empty if needs_uncond else None)


def _without_parallel(towards: Tensor, away: Tensor, scale: float) -> Tensor:
    """`towards` less `scale` of what in `away` is perpendicular to it, per sample."""
    if scale == 0:
        return towards
    axes = _axes(towards)
    overlap = (away * towards).sum(axes, keepdim=True) / (towards * towards).sum(axes, keepdim=True)
    return towards - (away - towards * overlap) * scale


@dataclass(frozen=True)
class DualCfg:
    """Two prompts: N + second_scale (S - N) + scale (P - S), or nested: N + second_scale (S + scale (P - S) - N)."""

    predict: Predict
    positive: Any
    second: Any
    negative: Any
    scale: float = 8.0
    second_scale: float = 8.0
    is_nested: bool = False

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        negative, second, positive = self.predict(x, sigma, [self.negative, self.second, self.positive])
        if self.is_nested:
            guided = negative + (second + (positive - second) * self.scale - negative) * self.second_scale
        else:
            guided = negative + (second - negative) * self.second_scale + (positive - second) * self.scale
        return Prediction(guided, negative if needs_uncond else None)
