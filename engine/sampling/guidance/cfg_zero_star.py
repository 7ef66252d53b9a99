"""CFG-Zero* (Fan 2025, arXiv:2503.18886).

While a flow's velocity is still poorly learnt, guidance adds the error of v_U. The scale s that minimises
|v_C - s v_U|^2 is s = <v_C, v_U> / |v_U|^2, and guidance becomes s v_U + w (v_C - s v_U). In the first steps, where the
learnt velocity is worse than none, it is zero.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.guidance.cfg import Estimates, Linear, has_uncond, sample_axes


@dataclass(frozen=True)
class CfgZeroStar:
    """CFG-Zero* (Fan 2025, arXiv:2503.18886): the unconditional velocity is first fitted to the conditional one.

    v = (x - D) / sigma; v_U is scaled by <v_C, v_U> / <v_U, v_U> per sample. At levels of `zero_from` and above the
    velocity is zero. Neutral: `is_fitted` off, `zero_from` infinite.
    """

    scale: float
    is_fitted: bool = True
    zero_from: float = math.inf

    def __post_init__(self) -> None:
        check_numbers(self)

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
        axes = sample_axes(v_cond)
        overlap, power = ((v_cond * v_uncond).sum(axes, keepdim=True), (v_uncond * v_uncond).sum(axes, keepdim=True))
        fitted = v_uncond * (overlap / (power + 1e-8))
        return known.x - (fitted + (v_cond - fitted) * self.scale) * known.sigma


@dataclass(frozen=True)
class CfgZeroStarDenoised:
    """As ComfyUI has it: U itself is fitted, s = <C, U> / |U|^2, and whatever guidance gave moves to s U in its place.

    On plain CFG: s U + scale (C - s U).
    """

    scale: float

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        if not has_uncond(known):
            return guided
        axes = sample_axes(known.cond)
        overlap, power = (
            (known.cond * known.uncond).sum(axes, keepdim=True),
            (known.uncond**2).sum(axes, keepdim=True),
        )
        fit = overlap / (power + 1e-8)
        return guided + known.uncond * ((fit - 1) * (1 - self.scale))
