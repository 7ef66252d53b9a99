"""Guidance rescale (Lin 2023, arXiv:2305.08891, section 3.4).

Guidance at scale w multiplies the spread of the prediction, which overexposes. The spread std(v_C) of the conditional
v-prediction is right by training. Eq. 15: v' = v std(v_C) / std(v); eq. 16 mixes it with v by a share.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, sample_axes


@dataclass(frozen=True)
class Rescale:
    """Bring the guided estimate's spread in v-space back to the conditional one's (Lin 2023, arXiv:2305.08891, eq. 15).

    v-space is that of a state with alpha = 1, whatever the model's. `share` 0 changes nothing.
    """

    share: float = 0.7

    def __post_init__(self) -> None:
        check_numbers(self)

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        if self.share == 0 or guided is known.cond:
            return guided
        power = known.sigma**2 + 1
        base, unit = known.x / power, math.sqrt(power) / known.sigma
        v_cond, v_guided = (base - known.cond) * unit, (base - guided) * unit
        ratio = v_cond.std(dim=sample_axes(guided), keepdim=True) / v_guided.std(dim=sample_axes(guided), keepdim=True)
        return base - v_guided * (ratio * self.share + (1 - self.share)) / unit


@dataclass(frozen=True)
class RescaledCfg:
    """Guidance and its rescaling as one combination, which another combination replaces."""

    scale: float
    share: float = 0.7

    @property
    def is_neutral(self) -> bool:
        """At scale 1 there is nothing to bring back."""
        return math.isclose(self.scale, 1.0)

    def __call__(self, known: Estimates) -> Tensor:
        return Rescale(self.share)(Linear(self.scale)(known), known)
