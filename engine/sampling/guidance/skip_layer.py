"""Skip-layer guidance (Stability AI's SD3.5 reference code, after Hyung 2024, arXiv:2411.18664).

A network with some layers left out is a weaker model of the same data. The way from its estimate to the whole
network's points towards what those layers know: C - C_skip, added to the guided estimate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sigmagraph.engine.sampling.caches.caching import begun
from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.denoiser import Predict, PredictRequest
from sigmagraph.engine.sampling.guidance.cfg import Estimates


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

    def __post_init__(self) -> None:
        check_numbers(self)

    def begin(self) -> "SkipLayer":
        """The same for one run."""
        return replace(self, predict=begun(self.predict, lambda sigma, sides: [-self.scale] * sides))

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        if self.scale == 0 or not self.start >= known.sigma >= self.end:
            return guided
        skipped = PredictRequest(self.predict, known.x, known.sigma, [self.positive]).answer()[0]
        moved = guided + (known.cond - skipped) * self.scale
        if self.rescale == 0:
            return moved
        return moved * (known.cond.std() / moved.std() * self.rescale + (1 - self.rescale))
