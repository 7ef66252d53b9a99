"""Evaluations left out where the model's answer can be foretold: EasyCache (Zhou 2025, arXiv:2507.02860).

A model maps an input u to an output v. Between two evaluations the output moves about k times as far as the input,

    k = |v_n - v_(n-1)| / |u_n - u_(n-1)|,        |.| the mean of absolute values,

and k hardly changes from step to step. So the relative change of the output since the last evaluation is foretold from
inputs alone, step by step: eps = k |u - u_n| / |v_n|. While the sum of eps stays below a threshold, the output is taken
to be u + (v_n - u_n), the difference of the last evaluation; beyond it the model is asked, and the sum begins anew.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from sigmagraph.engine.sampling.denoiser import Predict, PredictRequest
from sigmagraph.engine.sampling.parameterisation import Parameterisation

__all__ = ["Reuse", "Space", "network_space"]

LOG = logging.getLogger("sigmagraph")
STRIDE = 8  # changes are measured at every eighth place of the last two axes


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
    """What is known of one conditioning's estimates: last input and output, how they change, what is foretold."""

    fed: Tensor
    output: Tensor
    rate: float | None = None
    foretold: float = 0.0


@dataclass
class Reuse:
    """Foretells the answers of one run from the noise level `start` down to `end`; `threshold` is a relative change.

    Each conditioning has its own place (`side`: -2 and -1, uncond and cond). With `learns_before` the model's answers
    are noted at levels above `start` too, as LazyCache does. `skipped` counts the answers left out, `drift` is the sum
    of the relative changes foretold for them: an estimate of how far the run went without looking.
    """

    threshold: float
    start: float
    end: float
    space: Space = field(default_factory=Space)
    learns_before: bool = False
    tells: bool = False
    skipped: int = 0
    drift: float = 0.0
    _sides: dict[int, _Side] = field(default_factory=dict)

    def begin(self) -> "Reuse":
        """The same for one run: nothing is known, nothing was left out."""
        return replace(self, skipped=0, drift=0.0, _sides={})

    def asked(
        self, predict: Predict, x: Tensor, sigma: float, conditionings: Sequence[Any]
    ) -> Generator[PredictRequest, Sequence[Tensor], list[Tensor]]:
        """The estimates: those that can be foretold, and all others from the model in one request."""
        places = range(-len(conditionings), 0)
        kept = {place: self.kept(place, x, sigma) for place in places}
        wanted = [place for place in places if kept[place] is None]
        answers = (
            (yield PredictRequest(predict, x, sigma, [conditionings[place] for place in wanted])) if wanted else ()
        )
        for place, answer in zip(wanted, answers, strict=True):
            self.learn(place, x, sigma, answer)
            kept[place] = answer
        return [estimate for estimate in kept.values() if estimate is not None]

    def kept(self, place: int, x: Tensor, sigma: float) -> Tensor | None:
        """The estimate of a side where it is foretold; None where the model is to be asked."""
        side = self._sides.get(place)
        if side is None or side.rate is None or not self._acts(sigma):
            return None
        fed = self.space.fed(x, sigma)
        change = side.rate * _moved(fed, side.fed) / _size(side.output)
        side.foretold += change
        if not side.foretold < self.threshold:
            side.foretold = 0.0
            return None
        self.skipped += 1
        self.drift += change
        if self.tells:
            LOG.info("sigma %.4g: an evaluation left out, %d so far, drift %.3g", sigma, self.skipped, self.drift)
        return self.space.denoised(x, sigma, fed + (side.output - side.fed))

    def learn(self, place: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        """Take note of what the model said about a side."""
        if not (self.learns_before or self._acts(sigma)):
            return
        fed, output = self.space.fed(x, sigma), self.space.output(x, sigma, denoised)
        before = self._sides.get(place)
        side = _Side(fed, output) if before is None else replace(before, fed=fed, output=output)
        if before is not None and self._acts(sigma) and (moved := _moved(fed, before.fed)):
            side.rate = _moved(output, before.output) / moved
        self._sides[place] = side

    def _acts(self, sigma: float) -> bool:
        return self.start >= sigma > self.end


def _moved(one: Tensor, other: Tensor) -> float:
    """How far two states are apart, as a mean of absolute values."""
    return float((one[..., ::STRIDE, ::STRIDE] - other[..., ::STRIDE, ::STRIDE]).abs().mean())


def _size(value: Tensor) -> float:
    return float(value.abs().mean())
