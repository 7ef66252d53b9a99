"""CFG renormalisation and truncation, as in Lumina-Image 2.0's sampling code (arXiv:2503.21758)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, sample_axes


@dataclass(frozen=True)
class Renorm:
    """CFG below the noise level `below`, the conditional estimate above; its norm is at most `factor` times that one's.

    The norm is per image; `factor` 0 does not bound it.
    """

    scale: float
    below: float = 100.0
    factor: float = 1.0

    @property
    def is_neutral(self) -> bool:
        """At scale 1 it is C, which only a factor below 1 shortens."""
        return math.isclose(self.scale, 1.0) and (self.factor == 0 or self.factor >= 1)

    def __call__(self, known: Estimates) -> Tensor:
        if known.sigma >= self.below:
            return known.cond
        guided = Linear(self.scale)(known)
        if self.factor == 0:
            return guided
        axes = sample_axes(guided)
        bound, found = (torch.linalg.vector_norm(estimate, dim=axes, keepdim=True) for estimate in (known.cond, guided))
        bound = bound * self.factor
        return torch.where(found >= bound, guided * (bound / found), guided)
