"""Perp-Neg (Armandpour 2023, arXiv:2304.04968).

With E the empty prompt's estimate, P - E points towards the positive prompt and N - E towards the negative one. Where
the two prompts overlap, subtracting N - E removes what was asked for. So only its part perpendicular to P - E is
subtracted: E + w ((P - E) - s perp(N - E)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from sigmagraph.engine.sampling.caches.caching import begun
from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.denoiser import Predict, PredictRequest
from sigmagraph.engine.sampling.guidance.cfg import Adjustment, Estimates, check_rules, sample_axes
from sigmagraph.engine.sampling.solver import Prediction


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

    def begin(self) -> "PerpNegCombination":
        """The same for one run."""
        return replace(self, predict=begun(self.predict, lambda sigma, sides: [1.0 - self.scale] * sides))

    def __call__(self, known: Estimates) -> Tensor:
        empty = PredictRequest(self.predict, known.x, known.sigma, [self.empty]).answer()[0]
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

    def __post_init__(self) -> None:
        check_numbers(self)
        check_rules(self)

    def begin(self) -> "PerpNeg":
        """The same for one run."""
        away = self.scale * self.negative_scale
        sides = (
            (1.0 - self.scale, self.scale) if self.negative_scale == 0 else (-away, self.scale, 1.0 - self.scale + away)
        )
        return replace(self, predict=begun(self.predict, lambda sigma, asked: sides[-asked:]))

    def remember(self, memory: Tensor) -> None:
        """Nothing is carried that a recording holds."""

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        if self.negative_scale == 0:
            empty, positive = PredictRequest(self.predict, x, sigma, [self.empty, self.positive]).answer()
            towards = positive - empty
        else:
            sides = [self.negative, self.positive, self.empty]
            negative, positive, empty = PredictRequest(self.predict, x, sigma, sides).answer()
            towards = _without_parallel(positive - empty, negative - empty, self.negative_scale)
        guided, known = empty + towards * self.scale, Estimates(x, sigma, positive, empty)
        for adjustment in self.adjust:
            guided = adjustment(guided, known)
        return Prediction(guided, empty if needs_uncond else None)


def _without_parallel(towards: Tensor, away: Tensor, scale: float) -> Tensor:
    """`towards` less `scale` of what in `away` is perpendicular to it, per sample."""
    if scale == 0:
        return towards
    axes = sample_axes(towards)
    overlap = (away * towards).sum(axes, keepdim=True) / (towards * towards).sum(axes, keepdim=True)
    return towards - (away - towards * overlap) * scale
