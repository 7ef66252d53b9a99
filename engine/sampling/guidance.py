"""Guidance: (what the model predicts, conditionings) -> denoiser. Knows no solver, schedule or network.

`Predict` is the model with everything but guidance: the denoised estimate of `x` at `sigma`, one per conditioning,
compatible conditionings in one forward, in the order handed in. A guidance is a value: which estimates it combines
and how (`combine`), and a list of adjustments made to the result, in order. Neutral parameters are plain CFG exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from engine.sampling.solver import Prediction


class Predict(Protocol):
    """Denoised estimates [B, ...] of `x` [B, ...] at `sigma`, one per conditioning."""

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> Sequence[Tensor]: ...


class Denoiser(Protocol):
    """Anything that turns (x, sigma) into a guided estimate, with the unconditional one where it is asked for."""

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction: ...


@dataclass(frozen=True, slots=True)
class Estimates:
    """What was known when a guided estimate was formed: the state, its level, and both sides' estimates."""

    x: Tensor
    sigma: float
    cond: Tensor
    uncond: Tensor


class Adjustment(Protocol):
    """Changes a guided estimate after the fact, or leaves it exactly as it is."""

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor: ...


class Combination(Protocol):
    """Forms the guided estimate. `is_neutral`: it would be the conditional estimate, so the other side can be skipped."""

    @property
    def is_neutral(self) -> bool: ...

    def __call__(self, known: Estimates) -> Tensor: ...


@dataclass(frozen=True)
class Cfg:
    """Classifier-free guidance (Ho 2022, arXiv:2207.12598) in denoised space: U + scale (C - U).

    Cond and uncond are one batch, uncond first. At scale 1 the unconditional side is not evaluated unless a solver or
    an adjustment needs it. `combine` replaces the formula, `adjust` follows it, `interval` (sigma from, to) limits
    where guidance acts: outside it the estimate is the conditional one.
    """

    predict: Predict
    positive: Any
    negative: Any
    scale: float = 1.0
    combine: Combination | None = None
    adjust: Sequence[Adjustment] = field(default=())
    interval: tuple[float, float] = (math.inf, 0.0)

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        is_inside = self.interval[0] >= sigma >= self.interval[1]
        combine = self.combine or Linear(self.scale)
        if not needs_uncond and (not is_inside or (combine.is_neutral and not self.adjust)):
            return Prediction(self.predict(x, sigma, [self.positive])[0])
        uncond, cond = self.predict(x, sigma, [self.negative, self.positive])
        if not is_inside:
            return Prediction(cond, uncond)
        known = Estimates(x, sigma, cond, uncond)
        guided = combine(known)
        for adjustment in self.adjust:
            guided = adjustment(guided, known)
        return Prediction(guided, uncond)


@dataclass(frozen=True)
class Linear:
    """U + scale (C - U)."""

    scale: float

    @property
    def is_neutral(self) -> bool:
        return math.isclose(self.scale, 1.0)

    def __call__(self, known: Estimates) -> Tensor:
        return known.uncond + (known.cond - known.uncond) * self.scale


@dataclass(frozen=True)
class Unguided:
    """One conditioning and no guidance."""

    predict: Predict
    positive: Any

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        denoised = self.predict(x, sigma, [self.positive])[0]
        return Prediction(denoised, denoised if needs_uncond else None)


@dataclass(frozen=True)
class Rescale:
    """Bring the guided estimate's spread in v-space back to the conditional one's (Lin 2023, arXiv:2305.08891, eq. 15).

    v-space is that of a state with alpha = 1, whatever the model's. `share` 0 changes nothing.
    """

    share: float = 0.7

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        if self.share == 0:
            return guided
        power = known.sigma**2 + 1
        base, unit = known.x / power, math.sqrt(power) / known.sigma
        v_cond, v_guided = (base - known.cond) * unit, (base - guided) * unit
        axes = tuple(range(1, guided.ndim))
        ratio = v_cond.std(dim=axes, keepdim=True) / v_guided.std(dim=axes, keepdim=True)
        return base - v_guided * (ratio * self.share + (1 - self.share)) / unit
