"""Guidance by two prompts (Brooks 2022, arXiv:2211.09800, eq. 3): a scale of its own for each.

By Bayes' rule p(x | s, p) is p(x) p(s | x) p(p | s, x); each factor to a power of its own gives
N + w_S (S - N) + w (P - S), with N, S, P the estimates given nothing, the second prompt, and both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from sigmagraph.engine.sampling.caches.caching import begun
from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.denoiser import Predict, PredictRequest
from sigmagraph.engine.sampling.guidance.cfg import Adjustment, Combination, Estimates, Linear, check_rules
from sigmagraph.engine.sampling.solver import Prediction


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
    combine: Combination | None = None
    adjust: Sequence[Adjustment] = field(default=())

    def __post_init__(self) -> None:
        check_numbers(self)
        check_rules(self)

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        sides = [self.negative, self.second, self.positive]
        negative, second, positive = PredictRequest(self.predict, x, sigma, sides).answer()
        if self.is_nested:
            inner = self._guided(Estimates(x, sigma, positive, second), self.scale)
            guided = negative + (inner - negative) * self.second_scale
        else:
            inner = self._guided(Estimates(x, sigma, second, negative), self.second_scale)
            guided = inner + (positive - second) * self.scale
        return Prediction(guided, negative if needs_uncond else None)

    def begin(self) -> "DualCfg":
        """The same for one run."""
        outer, inner = self.second_scale, self.scale
        toward = (inner * outer, outer) if self.is_nested else (inner, outer)  # of positive, and of what is beside it
        weights = (1.0 - toward[1], toward[1] - toward[0], toward[0])
        return replace(self, predict=begun(self.predict, lambda sigma, sides: weights[-sides:]))

    def remember(self, memory: Tensor) -> None:
        """Nothing is carried that a recording holds."""

    def _guided(self, known: Estimates, scale: float) -> Tensor:
        """The inner guidance, with the formula and the adjustments that the model carries."""
        guided = (self.combine or Linear(scale))(known)
        for adjustment in self.adjust:
            guided = adjustment(guided, known)
        return guided
