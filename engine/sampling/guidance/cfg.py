"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598), and the frame that other rules fit into.

By Bayes' rule grad log p(c | x) = grad log p(x | c) - grad log p(x). Raising p(c | x) to the power w and going back to
the score gives U + w (C - U), with C the conditional and U the unconditional estimate. Score and denoised estimate
differ by an affine map that is the same for C and U, so the rule reads alike in both; here it is in denoised space.

A guidance is made of values: a combination of the two sides' estimates, and adjustments of the result, in order.
Neutral parameters are plain CFG bit for bit.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.caches.caching import begun
from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.denoiser import Begins, Predict, PredictRequest, Requests, Stateful, self_answered
from sigmagraph.engine.sampling.guidance.reuse import Foretold, Reuse
from sigmagraph.engine.sampling.solver import Prediction


@dataclass(frozen=True, slots=True)
class Estimates:
    """What was known when a guided estimate was formed. `uncond` is the conditional one where guidance did not act."""

    x: Tensor
    sigma: float
    cond: Tensor
    uncond: Tensor


def has_uncond(known: Estimates) -> bool:
    """Whether the unconditional side was asked about."""
    return known.uncond is not known.cond


class Preparation(Protocol):
    """Changes the two estimates before they are combined."""

    def __call__(self, known: Estimates) -> Estimates: ...


class Combination(Protocol):
    """Forms the guided estimate. `is_neutral`: that is the conditional one, so the other side can be skipped."""

    @property
    def is_neutral(self) -> bool:
        """Whether the result is the conditional estimate."""

    def __call__(self, known: Estimates) -> Tensor:
        """The guided estimate."""


class Adjustment(Protocol):
    """Changes a guided estimate after the fact, or hands it back as it is."""

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor: ...


@dataclass(frozen=True)
class Linear:
    """U + scale (C - U)."""

    scale: float

    @property
    def is_neutral(self) -> bool:
        """At scale 1 it is C."""
        return math.isclose(self.scale, 1.0)

    def __call__(self, known: Estimates) -> Tensor:
        return known.uncond + (known.cond - known.uncond) * self.scale


@dataclass(frozen=True, slots=True)
class ScaleRange:
    """A guidance scale of its own from one noise level down to another, both included."""

    start: float
    end: float
    scale: float


def check_rules(guidance: Any) -> None:
    """Refuse what is not a rule where one is due: a formula for `combine`, functions for `adjust` and `prepare`."""
    place, combine = type(guidance).__name__, getattr(guidance, "combine", None)
    if combine is not None and (isinstance(combine, type) or not hasattr(combine, "is_neutral")):
        raise BadValue(f"{place}.combine", combine, "a formula such as Apg(); Rescale and SkipLayer are for `adjust`")
    for name in ("adjust", "prepare"):
        rules = getattr(guidance, name, ())
        if not isinstance(rules, Sequence) or isinstance(rules, str):
            raise BadValue(f"{place}.{name}", rules, "a list of rules")
        for one in rules:
            if isinstance(one, type) or not callable(one) or (name == "adjust" and hasattr(one, "is_neutral")):
                raise BadValue(
                    f"{place}.{name}", one, "rules such as Rescale(0.7); Apg and CfgZeroStar are for `combine`"
                )


@dataclass(frozen=True)
class Cfg:
    """Classifier-free guidance as a denoiser: two estimates in one batch, uncond first, combined and adjusted.

    At scale 1 the unconditional side is not evaluated unless a solver needs it. `prepare` changes the estimates,
    `combine` replaces the formula, `adjust` follows it; outside `interval` (sigma from, sigma to; Kynkäänniemi 2024,
    arXiv:2404.07724) the estimate is the conditional one. `scales` set the scale for ranges of noise levels. `reuse`
    foretells estimates of the sides, `reuse_whole` guided ones, in place of evaluations.
    """

    predict: Predict
    positive: Any
    negative: Any
    scale: float = 1.0
    combine: Combination | None = None
    adjust: Sequence[Adjustment] = field(default=())
    prepare: Sequence[Preparation] = field(default=())
    scales: Sequence[ScaleRange] = field(default=())
    interval: tuple[float, float] = (math.inf, 0.0)
    reuse: Reuse | None = None
    reuse_whole: Reuse | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        check_rules(self)

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return self_answered(self.requests(x, sigma, needs_uncond))

    def requests(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Requests:
        """Both sides at once where both are needed; what adjustments predict is their own affair."""
        whole = self.reuse_whole
        kept = whole.foretold(-1, x, sigma) if whole is not None and not needs_uncond else None
        if whole is not None and kept is not None and all(kept.is_hit):
            return Prediction(self._settled(whole, x, sigma, None, kept), None, self._memory())
        combine = self._combination(sigma)
        acts = self.interval[0] >= sigma >= self.interval[1] and not (combine.is_neutral and not needs_uncond)
        if acts or needs_uncond:
            uncond, cond = yield from self._asked(x, sigma, [self.negative, self.positive])
        else:
            (cond,) = yield from self._asked(x, sigma, [self.positive])
            uncond = cond
        known = Estimates(x, sigma, cond, uncond)
        for preparation in self.prepare:
            known = preparation(known)
        guided = combine(known) if acts else known.cond
        for adjustment in self.adjust:
            guided = adjustment(guided, known)
        if combine is not self.combine and isinstance(self.combine, Stateful) and isinstance(combine, Stateful):
            self.combine.memory = combine.memory  # a range of scale had it stand in for this evaluation
        if whole is not None:
            guided = self._settled(whole, x, sigma, guided, kept)
        return Prediction(guided, uncond if needs_uncond else None, self._memory())

    def _asked(
        self, x: Tensor, sigma: float, conditionings: Sequence[Any]
    ) -> Generator[PredictRequest, Sequence[Tensor], Sequence[Tensor]]:
        """The estimates of the sides, as far as they have to be predicted."""
        if self.reuse is not None:
            return (yield from self.reuse.asked(self.predict, x, sigma, conditionings))
        return (yield PredictRequest(self.predict, x, sigma, conditionings))

    def _settled(self, whole: Reuse, x: Tensor, sigma: float, guided: Tensor | None, kept: Foretold | None) -> Tensor:
        """The guided estimate, foretold or not, image by image."""
        estimate, observed = whole.settled(-1, x, sigma, guided, kept)
        whole.drift.observe(sigma, [observed])
        return estimate

    def _weights(self, sigma: float, sides: int) -> Sequence[float]:
        """How much each side counts in the guided estimate; exact for the plain formula."""
        if sides == 1:
            return (1.0,)
        scale = float(getattr(self._combination(sigma), "scale", self.scale))
        return (1.0 - scale, scale)

    def _memory(self) -> Tensor | None:
        return next((part.memory for part in self._stateful()), None)

    def _combination(self, sigma: float) -> Combination:
        """The formula at a noise level: of the ranges of scale that hold it, the last one counts."""
        combine: Any = self.combine or Linear(self.scale)
        chosen = [scale.scale for scale in self.scales if scale.start >= sigma >= scale.end]
        formula: Combination = replace(combine, scale=chosen[-1]) if chosen else combine
        return formula

    def begin(self) -> "Cfg":
        """The same for one run: whatever its rules carry from one evaluation to the next begins anew."""
        parts: list[Any] = [self.combine, *self.prepare]
        combine, *prepare = [part.begin() if isinstance(part, Stateful | Begins) else part for part in parts]
        adjust: list[Any] = [part.begin() if isinstance(part, Begins) else part for part in self.adjust]
        return replace(
            self,
            predict=begun(self.predict, self._weights),
            combine=combine,
            prepare=prepare,
            adjust=adjust,
            reuse=begun(self.reuse, self._weights),
            reuse_whole=begun(self.reuse_whole, lambda sigma, sides: [1.0] * sides),
        )

    def remember(self, memory: Tensor) -> None:
        """Take up what a rule carried from one evaluation to the next in a run that is resumed."""
        for part in self._stateful():
            part.remember(memory)

    def _stateful(self) -> list[Stateful]:
        """At most one, as a recording holds one memory."""
        parts: list[Any] = [self.combine, *self.prepare]
        return [part for part in parts if isinstance(part, Stateful)]


@dataclass(frozen=True)
class Unguided:
    """One conditioning and no guidance."""

    predict: Predict
    positive: Any

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return self_answered(self.requests(x, sigma, needs_uncond))

    def requests(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Requests:
        """The one side there is."""
        (denoised,) = yield PredictRequest(self.predict, x, sigma, [self.positive])
        return Prediction(denoised, denoised if needs_uncond else None)


def sample_axes(x: Tensor) -> tuple[int, ...]:
    """All axes of one sample: norms and products in guidance rules are per image."""
    return tuple(range(1, x.ndim))
