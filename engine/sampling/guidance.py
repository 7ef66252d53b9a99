"""Guidance: (what the model predicts, conditionings) -> denoiser. Knows no solver, schedule or network.

`Predict` is the model with everything but guidance: the denoised estimate of `x` at `sigma`, one per conditioning,
compatible conditionings in one forward, in the order handed in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from engine.sampling.solver import Prediction


class Predict(Protocol):
    """Denoised estimates [B, ...] of `x` [B, ...] at `sigma`, one per conditioning."""

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> Sequence[Tensor]: ...


class Denoiser(Protocol):
    """Anything that turns (x, sigma) into a guided estimate, with the unconditional one where it is asked for."""

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction: ...


@dataclass(frozen=True)
class Cfg:
    """Classifier-free guidance (Ho 2022, arXiv:2207.12598) in denoised space: U + scale (C - U).

    Cond and uncond are one batch, uncond first. At scale 1 the unconditional side is not evaluated unless a solver
    needs it.
    """

    predict: Predict
    positive: Any
    negative: Any
    scale: float

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        if not needs_uncond and math.isclose(self.scale, 1.0):
            return Prediction(self.predict(x, sigma, [self.positive])[0])
        uncond, cond = self.predict(x, sigma, [self.negative, self.positive])
        return Prediction(uncond + (cond - uncond) * self.scale, uncond)


@dataclass(frozen=True)
class Unguided:
    """One conditioning and no guidance."""

    predict: Predict
    positive: Any

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        denoised = self.predict(x, sigma, [self.positive])[0]
        return Prediction(denoised, denoised if needs_uncond else None)
