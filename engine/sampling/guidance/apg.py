"""Adaptive projected guidance (Sadat 2024, arXiv:2410.02416).

CFG is C + (w - 1) d with d = C - U. Of d, the part parallel to C scales the estimate, which saturates colours; the
perpendicular part changes content. So d is (1) given momentum, d + beta d_last, (2) bounded in norm, r / |d|, and
(3) split, d = d_par + d_perp; the result is C + (w - 1) (d_perp + eta d_par).
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, sample_axes


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
        axes = sample_axes(difference)
        if self.norm_threshold > 0:
            norm: Tensor = torch.linalg.vector_norm(difference, dim=axes, keepdim=True)
            difference = difference * (self.norm_threshold / norm).clamp(max=1.0)
        unit: Tensor = known.cond / torch.linalg.vector_norm(known.cond, dim=axes, keepdim=True)
        parallel: Tensor = unit * (difference * unit).sum(dim=axes, keepdim=True)
        return known.cond + (difference - parallel + parallel * self.eta) * (self.scale - 1)
