"""Temporal score rescaling (Xu 2025, arXiv:2510.01184): data as if drawn at another temperature, at no cost.

For Gaussian data of deviation s, states at signal a and noise b have variance a^2 s^2 + b^2. Data of variance s^2 / k
would have the score times r = (n s^2 + 1) / (n s^2 / k + 1) with n = (a / b)^2. The rule scales any model's score so.
"""

from dataclasses import dataclass

from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates
from sigmagraph.engine.sampling.process import Process


@dataclass(frozen=True)
class ScoreRescaling:
    """The predicted noise is scaled by r; `k` above 1 is sharper, `deviation` the data's, in the model's units."""

    process: Process
    k: float = 0.95
    deviation: float = 1.0

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        sigma = known.sigma
        alpha = self.process.alpha(sigma)
        if self.k == 1 or sigma <= 0 or alpha <= 0:
            return guided
        signal = (alpha * self.deviation / sigma) ** 2
        share = (signal + 1) / (signal / self.k + 1)
        noise = known.x - alpha * guided  # times sigma
        return (known.x - share * noise) / alpha
