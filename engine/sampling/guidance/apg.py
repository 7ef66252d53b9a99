"""Adaptive projected guidance (Sadat 2024, arXiv:2410.02416).

CFG is C + (w - 1) d with d = C - U. Of d, the part parallel to C scales the estimate, which saturates colours; the
perpendicular part changes content. So d is (1) given momentum, d + beta d_last, (2) bounded in norm, r / |d|, and
(3) split, d = d_par + d_perp; the result is C + (w - 1) (d_perp + eta d_par).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, has_uncond, sample_axes

NOTHING = 1e-12  # a norm of an estimate that has no direction: nothing is parallel to it


@dataclass
class Projection:
    """The changed difference. `memory` is the running difference of momentum; a run begins without one.

    `eta` is the share of the parallel part kept, `norm_threshold` bounds the difference's norm per sample (0: no
    bound), `momentum` (negative in the paper) mixes past differences in. Neutral: 1, 0, 0.
    """

    eta: float = 0.0
    norm_threshold: float = 0.0
    momentum: float = 0.0
    memory: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def changes_nothing(self) -> bool:
        """Whether the difference stays C - U."""
        return (self.eta, self.norm_threshold, self.momentum) == (1.0, 0.0, 0.0)

    def begin(self) -> Self:
        """The same, for one run."""
        return replace(self, memory=None)

    def remember(self, memory: Tensor) -> None:
        """Go on from this running difference."""
        self.memory = memory

    def difference(self, known: Estimates) -> Tensor:
        """C - U with momentum, bounded, and with less of what is parallel to C."""
        difference = known.cond - known.uncond
        if self.momentum != 0:
            difference = difference if self.memory is None else difference + self.memory * self.momentum
            self.memory = difference
        axes = sample_axes(difference)
        if self.norm_threshold > 0:
            norm: Tensor = torch.linalg.vector_norm(difference, dim=axes, keepdim=True)
            difference = difference * (self.norm_threshold / norm).clamp(max=1.0)
        unit: Tensor = known.cond / torch.linalg.vector_norm(known.cond, dim=axes, keepdim=True).clamp(min=NOTHING)
        parallel: Tensor = unit * (difference * unit).sum(dim=axes, keepdim=True)
        return difference - parallel + parallel * self.eta


@dataclass
class Apg(Projection):
    """The paper's rule as a combination: C + (scale - 1) d'."""

    scale: float = field(default=1.0, kw_only=True)

    @property
    def is_neutral(self) -> bool:
        """At scale 1 nothing is added to C."""
        return math.isclose(self.scale, 1.0)

    def __call__(self, known: Estimates) -> Tensor:
        if self.changes_nothing:
            return Linear(self.scale)(known)
        return known.cond + self.difference(known) * (self.scale - 1)


@dataclass
class ApgPreparation(Projection):
    """As ComfyUI has it: the conditional estimate becomes U + d' before any formula sees it, so CFG is U + scale d'."""

    def __call__(self, known: Estimates) -> Estimates:
        if self.changes_nothing or not has_uncond(known):
            return known
        return replace(known, cond=known.uncond + self.difference(known))
