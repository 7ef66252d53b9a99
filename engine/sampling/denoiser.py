"""What answers a solver: a denoiser, and how it may say what it needs predicted instead of predicting it.

A denoiser is anything `(x, sigma) -> denoised`. One that also takes `needs_uncond` can give the unconditional estimate.
One with `requests` can be answered by whoever drives the run, so that several runs share a forward.
"""

import inspect
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from sigmagraph.engine.sampling.caller_values import ask, checked_estimate, checked_estimates
from sigmagraph.engine.sampling.solver import Prediction


class Predict(Protocol):
    """Denoised estimates [B, ...] of `x` [B, ...] at `sigma`, one per conditioning."""

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Any]) -> Sequence[Tensor]: ...


class Denoiser(Protocol):
    """Anything that turns (x, sigma) into an estimate of the clean latent: a tensor, or a `Prediction`."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor | Prediction: ...


@dataclass(frozen=True, slots=True, eq=False)
class PredictRequest:
    """What a denoiser wants predicted; whoever drives it may answer several of them in one forward."""

    predict: Predict
    x: Tensor
    sigma: float
    conditionings: Sequence[Any]

    def answer(self) -> Sequence[Tensor]:
        """The estimates, predicted alone, of a copy: a model that writes into its input does not change the run."""
        given = self.x.clone(), self.sigma, self.conditionings
        estimates = ask("predict", self.predict, given, "a function of (x, sigma, conditionings)")
        return checked_estimates(estimates, self.sigma, len(self.conditionings))


Requests: TypeAlias = Generator[PredictRequest, Sequence[Tensor], Prediction]


@runtime_checkable
class Requesting(Protocol):
    """A denoiser that can say what it wants predicted instead of predicting it."""

    def requests(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Requests:
        """Yield each prediction it needs, be sent the estimates, return what calling it returns."""


@runtime_checkable
class Stateful(Protocol):
    """Something that carries a tensor from one evaluation of a run to the next; a resumed run hands it back."""

    memory: Tensor | None

    def begin(self) -> Any:
        """The same without memory, for one run."""

    def remember(self, memory: Tensor) -> None:
        """Go on from there."""


@runtime_checkable
class Begins(Protocol):
    """A part of a guidance that asks a model of its own, which may carry state within a run."""

    def begin(self) -> Any:
        """The same for one run."""


@runtime_checkable
class Beginning(Protocol):
    """A denoiser that may carry state, and begins every run without."""

    def begin(self) -> Any:
        """The same denoiser for one run."""

    def remember(self, memory: Tensor) -> None:
        """Go on from there."""


def self_answered(requests: Requests) -> Prediction:
    """Every prediction made where it is asked for."""
    try:
        request = next(requests)
        while True:
            request = requests.send(request.answer())
    except StopIteration as end:
        prediction: Prediction = end.value
        return prediction


def requests_of(denoiser: Denoiser, x: Tensor, sigma: float, needs_uncond: bool) -> Requests:
    """One evaluation, as requests where the denoiser can say what it needs; else it is simply called."""
    if isinstance(denoiser, Requesting):
        return (yield from denoiser.requests(x, sigma, needs_uncond))
    return called(denoiser, x, sigma, needs_uncond)


def called(denoiser: Denoiser, x: Tensor, sigma: float, needs_uncond: bool) -> Prediction:
    """One evaluation by a denoiser that predicts for itself."""
    # a copy: one that writes into its input does not change the run
    named = {"needs_uncond": True} if needs_uncond else {}  # whether it takes that was looked at before the run
    given = ask(
        "denoiser", denoiser, (x.clone(), sigma), "a function of (x, sigma) that returns the denoised x", **named
    )
    if not isinstance(given, Prediction):
        return Prediction(checked_estimate(given, sigma, "the denoiser"))
    for estimate in given[:2]:
        if estimate is not None or given.denoised is None:
            checked_estimate(estimate, sigma, "the denoiser")
    return given


def gives_uncond(denoiser: Denoiser) -> bool:
    """Whether it can be asked for the unconditional estimate."""
    if isinstance(denoiser, Requesting):
        return True
    try:
        taken = inspect.signature(getattr(denoiser, "forward", denoiser)).parameters.values()  # torch's modules
    except (TypeError, ValueError):  # a callable of C code does not say what it takes
        return False
    return any(one.name == "needs_uncond" or one.kind is inspect.Parameter.VAR_KEYWORD for one in taken)
