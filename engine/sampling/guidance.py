"""Guidance: (what the model predicts, conditionings) -> denoiser. Knows no solver, schedule or network.

`Predict` is the model with everything but guidance: the denoised estimate of `x` at `sigma`, one per conditioning,
compatible conditionings in one forward, in the order handed in. A guidance is made of values: a combination of the
two sides' estimates, and adjustments of the result, in order. Neutral parameters are plain CFG bit for bit.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from sigmagraph.engine.sampling.solver import Prediction


class Predict(Protocol):
    """Denoised estimates [B, ...] of `x` [B, ...] at `sigma`, one per conditioning."""

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> Sequence[Tensor]: ...


class Denoiser(Protocol):
    """Anything that turns (x, sigma) into a guided estimate, with the unconditional one where it is asked for."""

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction: ...


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """What a denoiser wants predicted; whoever drives it may answer several of them in one forward."""

    predict: Predict
    x: Tensor
    sigma: float
    conditionings: Sequence[Any]

    def answer(self) -> Sequence[Tensor]:
        """The estimates, predicted alone."""
        return self.predict(self.x, self.sigma, self.conditionings)


Asks = Generator[Ask, Sequence[Tensor], Prediction]


@runtime_checkable
class Asking(Protocol):
    """A denoiser that can say what it wants predicted instead of predicting it."""

    def asks(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Asks:
        """Yield each prediction it needs, be sent the estimates, return what calling it returns."""


def answered(asks: Asks) -> Prediction:
    """Every prediction made where it is asked for."""
    try:
        ask = next(asks)
        while True:
            ask = asks.send(ask.answer())
    except StopIteration as end:
        prediction: Prediction = end.value
        return prediction


@dataclass(frozen=True, slots=True)
class Estimates:
    """What was known when a guided estimate was formed. `uncond` is the conditional one where guidance did not act."""

    x: Tensor
    sigma: float
    cond: Tensor
    uncond: Tensor


class Combination(Protocol):
    """Forms the guided estimate. `is_neutral`: that is the conditional one, so the other side can be skipped."""

    @property
    def is_neutral(self) -> bool:
        """Whether the result is the conditional estimate."""

    def __call__(self, known: Estimates) -> Tensor:
        """The guided estimate."""


@runtime_checkable
class Remembering(Protocol):
    """Something that carries a tensor from one evaluation to the next; a resumed run hands it back."""

    def remember(self, memory: Tensor) -> None:
        """Go on from there."""


class Adjustment(Protocol):
    """Changes a guided estimate after the fact, or hands it back as it is."""

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor: ...


@dataclass(frozen=True)
class Linear:
    """U + scale (C - U) (Ho 2022, arXiv:2207.12598), in denoised space."""

    scale: float

    @property
    def is_neutral(self) -> bool:
        """At scale 1 it is C."""
        return math.isclose(self.scale, 1.0)

    def __call__(self, known: Estimates) -> Tensor:
        return known.uncond + (known.cond - known.uncond) * self.scale


@dataclass(frozen=True)
class Cfg:
    """Classifier-free guidance as a denoiser: two estimates in one batch, uncond first, combined and adjusted.

    At scale 1 the unconditional side is not evaluated unless a solver needs it. `combine` replaces the formula,
    `adjust` follows it; outside `interval` (sigma from, sigma to; Kynkäänniemi 2024, arXiv:2404.07724) the estimate
    is the conditional one.
    """

    predict: Predict
    positive: Any
    negative: Any
    scale: float = 1.0
    combine: Combination | None = None
    adjust: Sequence[Adjustment] = field(default=())
    interval: tuple[float, float] = (math.inf, 0.0)

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return answered(self.asks(x, sigma, needs_uncond))

    def asks(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Asks:
        """Both sides at once where both are needed; what adjustments predict is their own affair."""
        combine = self.combine or Linear(self.scale)
        acts = self.interval[0] >= sigma >= self.interval[1] and not (combine.is_neutral and not needs_uncond)
        if acts or needs_uncond:
            uncond, cond = yield Ask(self.predict, x, sigma, [self.negative, self.positive])
        else:
            (cond,) = yield Ask(self.predict, x, sigma, [self.positive])
            uncond = cond
        known = Estimates(x, sigma, cond, uncond)
        guided = combine(known) if acts else cond
        for adjustment in self.adjust:
            guided = adjustment(guided, known)
        return Prediction(guided, uncond if needs_uncond else None, getattr(combine, "memory", None))

    def remember(self, memory: Tensor) -> None:
        """Take up what `combine` carried from one evaluation to the next in a run that is resumed."""
        if isinstance(self.combine, Remembering):
            self.combine.remember(memory)


@dataclass(frozen=True)
class Unguided:
    """One conditioning and no guidance."""

    predict: Predict
    positive: Any

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return answered(self.asks(x, sigma, needs_uncond))

    def asks(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Asks:
        """The one side there is."""
        (denoised,) = yield Ask(self.predict, x, sigma, [self.positive])
        return Prediction(denoised, denoised if needs_uncond else None)
