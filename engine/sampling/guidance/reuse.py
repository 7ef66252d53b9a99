"""Evaluations left out where the model's answer can be foretold: EasyCache (Zhou 2025, arXiv:2507.02860).

A model maps an input u to an output v. Between two evaluations the output moves about k times as far as the input,

    k = |v_n - v_(n-1)| / |u_n - u_(n-1)|,        |.| the mean of absolute values over one image,

and k hardly changes from step to step. So the relative change of the output since the last evaluation is foretold from
inputs alone, step by step: eps = k |u - u_n| / |v_n|. While the sum of eps stays below a threshold, the output is taken
to be u + (v_n - u_n), the difference of the last evaluation; beyond it the model is asked, and the sum begins anew.

With `per_image` every image decides for itself. Where one of a batch needs the model, all are asked about, and the
others keep to what was foretold: so no image depends on the company it is in. Without it the means are those of the
whole batch, as ComfyUI has it.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from sigmagraph.engine.sampling.caches.drift import Drift, Observed, Weigh
from sigmagraph.engine.sampling.caller_values import check_numbers
from sigmagraph.engine.sampling.denoiser import Predict, PredictRequest
from sigmagraph.engine.sampling.parameterisation import Parameterisation

__all__ = ["EasyCache", "LazyCache", "Reuse", "ReuseRule", "ReusedPredict", "Space", "network_space"]

LOG = logging.getLogger("sigmagraph")
STRIDE = 8  # changes are measured at every eighth place of the last two axes
Guidance = TypeVar("Guidance")


@dataclass(frozen=True, slots=True)
class Space:
    """What an answer is measured in. Without functions: the state is the input, the estimate the output.

    `fed(x, sigma)` is the input, `output(x, sigma, denoised)` the output and `denoised(x, sigma, output)` its inverse.
    """

    fed: Callable[[Tensor, float], Tensor] = lambda x, sigma: x
    output: Callable[[Tensor, float, Tensor], Tensor] = lambda x, sigma, denoised: denoised
    denoised: Callable[[Tensor, float, Tensor], Tensor] = lambda x, sigma, output: output


def network_space(parameterisation: Parameterisation) -> Space:
    """The network's own input and raw output; an estimate is affine in the output, so that it can be read back."""

    def output(x: Tensor, sigma: float, denoised: Tensor) -> Tensor:
        zero = parameterisation.denoised(x, sigma, x * 0.0)
        return (denoised - zero) / (parameterisation.denoised(x, sigma, x * 0.0 + 1.0) - zero)

    return Space(parameterisation.network_input, output, parameterisation.denoised)


@dataclass(slots=True)
class _Side:
    """What is known of one conditioning's estimates, image by image: last input, last output, how they change."""

    fed: Tensor
    output: Tensor
    rates: list[float | None]
    foretold: list[float]
    levels: list[float]


@dataclass(frozen=True, slots=True)
class Foretold:
    """Estimates of one side, and for which images they are to be taken."""

    denoised: Tensor
    is_hit: list[bool]
    reach: list[float]


@dataclass
class Reuse:
    """Foretells the answers of one run from the noise level `start` down to `end`; `threshold` is a relative change.

    Each conditioning has its own place (`side`: -2 and -1, uncond and cond). With `learns_before` the model's answers
    are noted at levels above `start` too, as LazyCache does. `drift` counts what was left out, and says how far off it
    may have led.
    """

    threshold: float
    start: float
    end: float
    space: Space = field(default_factory=Space)
    learns_before: bool = False
    tells: bool = False
    per_image: bool = False
    drift: Drift = field(default_factory=Drift, repr=False, compare=False)
    _sides: dict[int, _Side] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> str:
        """What nodes and reports call it, with its threshold."""
        return f"{'lazycache' if self.learns_before else 'easycache'}:{self.threshold:g}"

    @property
    def skipped(self) -> int:
        """How many estimates, of one image and one side each, were left out."""
        return self.drift.skipped

    def begin_caching(self, weigh: Weigh) -> "Reuse":
        """The same for one run: nothing is known, nothing was left out."""
        return replace(self, drift=Drift(weigh), _sides={})

    def without_cache(self) -> None:
        """Nothing stands in its place."""

    def asked(
        self, predict: Predict, x: Tensor, sigma: float, conditionings: Sequence[Any]
    ) -> Generator[PredictRequest, Sequence[Tensor], list[Tensor]]:
        """The estimates: those that can be foretold, and all others from the model in one request."""
        places = range(-len(conditionings), 0)
        foretold = {place: self.foretold(place, x, sigma) for place in places}
        wanted = [place for place in places if not _is_enough(foretold[place])]
        answers = (
            (yield PredictRequest(predict, x, sigma, [conditionings[place] for place in wanted])) if wanted else ()
        )
        given = dict(zip(wanted, answers, strict=True))
        found = [self.settled(place, x, sigma, given.get(place), foretold[place]) for place in places]
        self.drift.observe(sigma, [observed for _, observed in found])
        if self.tells and len(wanted) < len(places):
            LOG.info("sigma %.4g: %d estimates left out so far", sigma, self.skipped)
        return [estimate for estimate, _ in found]

    def foretold(self, place: int, x: Tensor, sigma: float) -> Foretold | None:
        """What is foretold of a side, and for which images it counts; None where nothing is known."""
        side = self._sides.get(place)
        if side is None or side.fed.shape != x.shape or not self._acts(sigma):
            return None
        fed = self.space.fed(x, sigma)
        denoised = self.space.denoised(x, sigma, fed + (side.output - side.fed))
        reach = [abs(level - sigma) for level in side.levels]
        if all(rate is None for rate in side.rates):
            return Foretold(denoised, [False] * len(x), reach)
        moved, sizes = self._moved(fed, side.fed), self._means(side.output)
        is_hit = []
        for row, rate in enumerate(side.rates):
            if rate is not None:
                side.foretold[row] += rate * moved[row] / sizes[row]
            is_hit.append(rate is not None and side.foretold[row] < self.threshold)
            if not is_hit[row]:
                side.foretold[row] = 0.0
        return Foretold(denoised, is_hit, reach)

    def settled(
        self, place: int, x: Tensor, sigma: float, answer: Tensor | None, foretold: Foretold | None
    ) -> tuple[Tensor, Observed]:
        """The estimate of a side, of which the model said `answer` if it was asked; what it said is learnt."""
        if foretold is None:
            assert answer is not None  # a side of which nothing is known is asked about
            self._learn(place, x, sigma, answer, [True] * len(x))
            return answer, Observed([True] * len(x), [False] * len(x), answer, None, [0.0] * len(x))
        is_full = [not hit for hit in foretold.is_hit]
        if answer is None:
            return foretold.denoised, Observed(is_full, is_full, foretold.denoised, None, foretold.reach)
        self._learn(place, x, sigma, answer, is_full)
        estimate = answer if all(is_full) else torch.where(_rows(is_full, x), answer, foretold.denoised)
        return estimate, Observed(is_full, is_full, estimate, foretold.denoised, foretold.reach)

    def _learn(self, place: int, x: Tensor, sigma: float, denoised: Tensor, rows: list[bool]) -> None:
        """Take note of what the model said about some images of a side."""
        if not (self.learns_before or self._acts(sigma)):
            return
        fed, output = self.space.fed(x, sigma), self.space.output(x, sigma, denoised)
        before = self._sides.get(place)
        if before is None or before.fed.shape != fed.shape:
            self._sides[place] = _Side(fed, output, [None] * len(x), [0.0] * len(x), [sigma] * len(x))
            return
        rates = list(before.rates)
        if self._acts(sigma):
            moved, came = self._moved(fed, before.fed), self._moved(output, before.output)
            for row, learns in enumerate(rows):
                if learns and moved[row]:
                    rates[row] = came[row] / moved[row]
        if not all(rows):
            fed = torch.where(_rows(rows, x), fed, before.fed)
            output = torch.where(_rows(rows, x), output, before.output)
        levels = [sigma if learns else level for learns, level in zip(rows, before.levels, strict=True)]
        self._sides[place] = _Side(fed, output, rates, before.foretold, levels)

    def _acts(self, sigma: float) -> bool:
        return self.start >= sigma > self.end

    def _moved(self, one: Tensor, other: Tensor) -> list[float]:
        """How far two states are apart, for each image."""
        return self._means(one[..., ::STRIDE, ::STRIDE] - other[..., ::STRIDE, ::STRIDE])

    def _means(self, value: Tensor) -> list[float]:
        """The mean of absolute values, for each image: its own, or that of all."""
        if not self.per_image:
            return [float(value.abs().mean())] * len(value)
        means: list[float] = value.abs().flatten(1).mean(1).tolist()
        return means


@dataclass(frozen=True, eq=False)
class ReusedPredict:
    """A predictor under a `Reuse`, for guidances that predict for themselves."""

    predict: Predict
    reuse: Reuse

    @property
    def drift(self) -> Drift:
        """What was left out, and how far off that led."""
        return self.reuse.drift

    @property
    def label(self) -> str:
        """The rule's."""
        return self.reuse.label

    def begin_caching(self, weigh: Weigh) -> "ReusedPredict":
        """The same for one run."""
        return ReusedPredict(self.predict, self.reuse.begin_caching(weigh))

    def without_cache(self) -> Predict:
        """The predictor alone."""
        return self.predict

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> list[Tensor]:
        asked = self.reuse.asked(self.predict, x, sigma, conditionings)
        try:
            request = next(asked)
            while True:
                request = asked.send(request.answer())
        except StopIteration as end:
            estimates: list[Tensor] = end.value
            return estimates


@dataclass(frozen=True, slots=True)
class ReuseRule:
    """A `Reuse` as a setting of a model: it acts from a share of the way to another. `tells` logs what is left out.

    `per_image` False decides for a batch as a whole, which is ComfyUI's way.
    """

    threshold: float = 0.2
    start: float = 0.15
    end: float = 0.95
    tells: bool = False
    per_image: bool = True

    label: ClassVar[str]

    def __post_init__(self) -> None:
        check_numbers(self)

    def on(self, guided: Guidance, parameterisation: Parameterisation) -> Guidance:
        """A guidance of this model that leaves estimates out."""
        raise NotImplementedError

    def _rule(self, parameterisation: Parameterisation) -> Reuse:
        level = parameterisation.levels.percent_to_sigma
        start, end = level(self.start), level(self.end)
        return Reuse(self.threshold, start, end, tells=self.tells, per_image=self.per_image)


@dataclass(frozen=True, slots=True)
class EasyCache(ReuseRule):
    """Foretells each side of the guidance by itself, in the network's own input and output."""

    label: ClassVar[str] = "easycache"

    def on(self, guided: Guidance, parameterisation: Parameterisation) -> Guidance:
        changed: Any = guided
        return replace(changed, reuse=self.reuse(parameterisation))  # type: ignore[no-any-return]

    def reuse(self, parameterisation: Parameterisation) -> Reuse:
        """Its rule for a model's levels."""
        return replace(self._rule(parameterisation), space=network_space(parameterisation))


@dataclass(frozen=True, slots=True)
class LazyCache(ReuseRule):
    """Foretells the guided estimate as a whole, whatever guides it."""

    label: ClassVar[str] = "lazycache"

    def on(self, guided: Guidance, parameterisation: Parameterisation) -> Guidance:
        changed: Any = guided
        return replace(changed, reuse_whole=replace(self._rule(parameterisation), learns_before=True))  # type: ignore[no-any-return]


def _is_enough(foretold: Foretold | None) -> bool:
    return foretold is not None and all(foretold.is_hit)


def _rows(chosen: Sequence[bool], like: Tensor) -> Tensor:
    return torch.tensor(chosen, device=like.device).reshape(-1, *(1,) * (like.ndim - 1))
