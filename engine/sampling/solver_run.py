"""One solver under way: it is driven request by request, so whoever drives it may stop, interleave or report.

Inference mode, ticks, the NaN check, counts, recording and replaying are here; nothing waits for the device in a step.
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadPrediction, BadSampler
from sigmagraph.engine.sampling.caches.caching import caches_in
from sigmagraph.engine.sampling.denoiser import Beginning, Denoiser, PredictRequest, Requests, called, requests_of
from sigmagraph.engine.sampling.finite import FiniteWatch
from sigmagraph.engine.sampling.noise import NoiseSource, NoiseSpec
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.record import Recording
from sigmagraph.engine.sampling.solver import Context, Evaluate, Prediction, Solver, Step, Steps
from sigmagraph.engine.sampling.transition import Transition

LOG = logging.getLogger("sigmagraph")


@dataclass(frozen=True, slots=True)
class Tick:
    """One evaluation is done: `step` steps of `steps` are complete; `x` and `denoised` are the newest.

    `transition`: where the step that led to `x` might have led, of samplers that say so.
    """

    step: int
    steps: int
    sigma: float
    evaluations: int
    x: Tensor
    denoised: Tensor
    transition: Transition | None = None


class SolverRun:
    """One solver under way: `request` is what it wants evaluated next, None once `result` is there.

    Whoever drives it says whether gradients are tracked; `drive` runs it in inference mode.
    """

    def __init__(
        self, solver: Solver, x: Tensor, sigmas: Sequence[float], ctx: Context, options: Mapping[str, object]
    ) -> None:
        self._name, self._coroutine = str(solver.name), _started(solver, x, sigmas, ctx, options)
        self._sigmas, self._counts_levels, self._furthest = sigmas, solver.own_steps, 0
        self.steps = len(sigmas) - 1
        self.step = self.evaluations = 0
        self.request: Evaluate | None = None
        self.result: Tensor | None = None
        self.done: list[Step] = []
        self._advance(None)

    def answer(self, prediction: Prediction) -> None:
        """Hand over what `request` asked for; the solver runs on to its next request or to its end."""
        assert self.request is not None
        if self.request.needs_uncond and prediction.uncond is None:
            raise BadPrediction(
                "this sampler needs the unconditional estimate, and the guidance gave none; "
                "a denoiser that takes `needs_uncond` returns Prediction(denoised, uncond)"
            )
        self.evaluations += 1
        self._advance(prediction[:2] if self.request.needs_uncond else prediction.denoised)

    @property
    def progress(self) -> int:
        """Steps done, of `steps`: all of them at the end and not before, whatever the rule counts as a step.

        Rules that choose their own steps are where their level is in the schedule.
        """
        if self.request is None:
            return self.steps
        if self._counts_levels:
            passed = sum(sigma >= self.request.sigma for sigma in self._sigmas) - 1
            self._furthest = max(self._furthest, passed)
            return min(self._furthest, self.steps - 1)
        return min(self.step, self.steps - 1)

    def close(self) -> None:
        """Stop the solver where it stands."""
        self._coroutine.close()

    def _advance(self, value: tuple[Tensor, Tensor | None] | Tensor | None) -> None:
        self.request, self.done = None, []
        try:
            said = self._coroutine.send(value)
            while isinstance(said, Step):
                self.step += 1
                self.done.append(said)
                said = self._coroutine.send(None)
        except StopIteration as end:
            if not isinstance(end.value, Tensor):
                raise BadSampler(self._name, f"returned {_kind(end.value)}", "`return x` at its end") from None
            self.result = end.value
            return
        if not isinstance(said, Evaluate):
            raise BadSampler(self._name, f"yielded {_kind(said)}", "Evaluate(x, sigma) or Step(x, denoised)")
        if not isinstance(said.x, Tensor):
            raise BadSampler(self._name, f"asks for an estimate at {_kind(said.x)}", "Evaluate(x, sigma), x a tensor")
        self.request = said


def _started(solver: Solver, x: Tensor, sigmas: Sequence[float], ctx: Context, options: Mapping[str, object]) -> Steps:
    given: object = solver.start(x, sigmas, ctx, options)
    if not isinstance(given, Generator):
        raise BadSampler(solver.name, f"is not a generator: it gave {_kind(given)}", "`yield Evaluate(x, sigma)` in it")
    return given


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


Driven = Generator[Tick | PredictRequest, Sequence[Tensor] | None, Tensor]
"""Ticks, which need no answer, and what is to be predicted, which is answered with the estimates."""


def drive(
    run: SolverRun, denoiser: Denoiser, recording: Recording | None = None, gradients: bool = False
) -> Generator[Tick, None, Tensor]:
    """Answer a run's requests until it ends; predictions already in `recording` are replayed, not made again."""
    return ticks_only(drive_requests(run, denoiser, recording, gradients), gradients)


def tracking(gradients: bool) -> AbstractContextManager[object]:
    """Inference mode; or, where gradients are asked for, the caller's own mode."""
    return nullcontext() if gradients else torch.inference_mode()


def ticks_only(driven: Driven, gradients: bool = False) -> Generator[Tick, None, Tensor]:
    """Predict what is asked for where it is asked for; ticks remain."""
    answer: Sequence[Tensor] | None = None
    try:
        while True:
            said = driven.send(answer)
            answer = None
            if isinstance(said, PredictRequest):
                with tracking(gradients):
                    answer = said.answer()
            else:
                yield said
    except StopIteration as end:
        result: Tensor = end.value
        return result
    finally:
        driven.close()


def drive_requests(
    run: SolverRun, denoiser: Denoiser, recording: Recording | None = None, gradients: bool = False
) -> Driven:
    """As `drive`, but predictions are asked for, if the denoiser can say what it needs: others may make them.

    What a step cache has seen is in no recording. Under one, recorded predictions are made again from the first, so
    that a resumed run is the whole one.
    """
    if recording is not None and recording.predictions and any(caches_in(denoiser)):
        LOG.info("a step cache keeps nothing: %d recorded predictions are made again", len(recording.predictions))
        recording.restart()
    replay = recording.rest() if recording is not None else iter(())
    while run.request is not None and (known := next(replay, None)) is not None:
        run.answer(known)
        if known.memory is not None and isinstance(denoiser, Beginning):
            denoiser.remember(known.memory)
    watch = FiniteWatch()
    try:
        while (request := run.request) is not None:
            prediction = yield from _predicted(denoiser, request, run.step + 1, gradients)
            with tracking(gradients):
                denoised, uncond = prediction[:2]
                is_apart = request.needs_uncond and uncond is not denoised
                estimates = [denoised] if uncond is None or not is_apart else [denoised, uncond]
                for estimate in estimates:
                    _check_shape(estimate, request, run.step + 1)
                watch.add([estimate.detach() for estimate in estimates], run.step + 1, request.sigma)
                if recording is not None:
                    recording.add(prediction)
                run.answer(prediction)
            newest = run.done[-1] if run.done else Step(request.x, prediction.denoised)
            x, denoised, led = newest.x, newest.denoised, newest.transition
            yield Tick(run.progress, run.steps, request.sigma, run.evaluations, x, denoised, led)
    finally:
        run.close()
    watch.finish()
    assert run.result is not None
    return run.result


def _check_shape(estimate: Tensor, request: Evaluate, step: int) -> None:
    """An estimate is shaped like the state it is of, and lies there: broadcast, it would be wrong without a word."""
    if estimate.shape != request.x.shape:
        raise BadPrediction(
            f"step {step}, sigma {request.sigma:.6g}: the model returned shape "
            f"{tuple(estimate.shape)} for a state of shape {tuple(request.x.shape)}"
        )
    if estimate.device != request.x.device:
        raise BadPrediction(
            f"step {step}, sigma {request.sigma:.6g}: the model returned a tensor on {estimate.device} "
            f"for a state on {request.x.device}"
        )


def _predicted(
    denoiser: Denoiser, request: Evaluate, step: int, gradients: bool
) -> Generator[PredictRequest, Sequence[Tensor] | None, Prediction]:
    """One evaluation; where the denoiser can say what it needs, whoever drives the run predicts it.

    A model may answer in half precision: guidance and solver get it in the state's.
    """
    dtype = request.x.dtype
    if not hasattr(denoiser, "requests"):
        with tracking(gradients):
            return _in_dtype(called(denoiser, request.x, request.sigma, request.needs_uncond), dtype)
    wanted: Requests = requests_of(denoiser, request.x, request.sigma, request.needs_uncond)
    answer: Sequence[Tensor] | None = None
    while True:
        try:
            with tracking(gradients):
                asked = next(wanted) if answer is None else wanted.send(answer)
        except StopIteration as end:
            prediction: Prediction = end.value
            return _in_dtype(prediction, dtype)
        estimates = yield asked
        for estimate in estimates or ():
            _check_shape(estimate, request, step)
        answer = [estimate.to(dtype) for estimate in estimates or ()]


def _in_dtype(prediction: Prediction, dtype: torch.dtype) -> Prediction:
    denoised, uncond, memory = prediction
    if denoised.dtype == dtype and (uncond is None or uncond.dtype == dtype):
        return prediction
    return Prediction(denoised.to(dtype), None if uncond is None else uncond.to(dtype), memory)


def context_of(
    solver: Solver,
    x: Tensor,
    sigmas: Sequence[float],
    parameterisation: Parameterisation,
    noise: NoiseSource,
    batch_index: Sequence[int] | None = None,
) -> Context:
    """What a solver may know about a run that starts from `x`."""
    lowest = min((sigma for sigma in sigmas if sigma > 0), default=0.0)
    spec = NoiseSpec(lowest, max(sigmas), solver.seeding, solver.on_device, batch_index)
    streams = noise.streams(x, spec)
    return Context(
        parameterisation.process,
        parameterisation.levels,
        x.dtype,
        streams.draw,
        streams.churn,
        streams.brownian,
    )
