"""Both ways across to functions of k-diffusion's form, `f(model, x, sigmas, extra_args, callback, disable, ...)`.

Such a function calls its model; a solver asks to be answered. So a function that comes in runs in a thread of its own
and its calls become requests. Nothing of k-diffusion is imported.
"""

import inspect
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import SimpleQueue
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling.denoiser import Denoiser
from sigmagraph.engine.sampling.noise import ComfyNoise, NoiseSource
from sigmagraph.engine.sampling.options import Interval
from sigmagraph.engine.sampling.parameterisation import Parameterisation
from sigmagraph.engine.sampling.sampling import checked_sigmas
from sigmagraph.engine.sampling.solver import SOLVERS, Context, Evaluate, Noise, Prediction, Solver, Step, Steps
from sigmagraph.engine.sampling.solver_run import SolverRun, context_of, drive

FIXED = ("model", "x", "sigmas", "extra_args", "callback", "disable", "noise_sampler")
ANY = Interval(-math.inf, math.inf)


class _Stopped(BaseException):
    """Thrown into the function's thread when its run is closed; not an Exception, so that it is not caught there."""


class _Bridge:
    """What passes between the thread and the coroutine: requests out, answers in."""

    def __init__(self) -> None:
        self.out: SimpleQueue[Evaluate | Step | BaseException | Tensor] = SimpleQueue()
        self.back: SimpleQueue[Tensor | None] = SimpleQueue()

    def model(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        """What the function takes for its model: `sigma` is a tensor [B] there, one number here."""
        self.out.put(Evaluate(x, float(sigma.flatten()[0])))
        answer = self.back.get()
        if answer is None:
            raise _Stopped
        return answer

    def callback(self, state: Mapping[str, Any]) -> None:
        """What the function reports after an evaluation."""
        self.out.put(Step(state["x"], state["denoised"]))


def from_k_diffusion(
    function: Callable[..., Any],
    name: str,
    *,
    order: int,
    noise: Noise = Noise.NONE,
    registry: Registry[Solver] | None = SOLVERS,
    model: Callable[[Callable[..., Tensor], Context], Callable[..., Tensor]] | None = None,
    **declared: Any,
) -> Solver:
    """Make a sampler of a k-diffusion-style function, unchanged, and register it (None: do not).

    `model` makes what it is given for its model of a plain function and of what is known of the run.

    Parameters with a number, a string or a boolean for their default become options of the sampler; one called
    `noise_sampler` gets the run's own noise.
    """
    accepted = inspect.signature(function).parameters

    def solve(x: Tensor, sigmas: Sequence[float], ctx: Context, **options: object) -> Steps:
        bridge, extra = _Bridge(), dict[str, Any](options)
        if "noise_sampler" in accepted:
            drawn = ctx.brownian if noise is Noise.BROWNIAN else lambda sigma, sigma_next: ctx.draw()
            extra["noise_sampler"] = lambda sigma, sigma_next: drawn(float(sigma), float(sigma_next))
        levels = torch.tensor(sigmas, dtype=x.dtype, device=x.device)
        asked = bridge.model if model is None else model(bridge.model, ctx)

        def work() -> None:
            try:
                with torch.inference_mode():
                    bridge.out.put(function(asked, x, levels, {}, bridge.callback, True, **extra))
            except _Stopped:
                return
            except BaseException as error:  # noqa: BLE001  # handed over to the thread that waits for it
                bridge.out.put(error)

        thread = threading.Thread(target=work, name=f"sampler {name}", daemon=True)
        thread.start()
        return _relayed(bridge, thread)

    _declare(solve, accepted.values())
    solve.__doc__ = (inspect.getdoc(function) or f"{name}: a function of k-diffusion's form.").partition("\n")[0]
    made = Solver(name, solve, order, noise=noise, source=declared.pop("source", function.__module__), **declared)
    return made if registry is None else registry.add(name, made)


def _declare(solve: Callable[..., Steps], parameters: Iterable[inspect.Parameter]) -> None:
    """Give `solve` the signature from which a sampler's options are read."""
    found = [one for one in parameters if one.name not in FIXED and type(one.default) in (bool, int, float, str)]
    kinds: dict[type, Any] = {int: Annotated[int, ANY], float: Annotated[float, ANY]}
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("x", "sigmas", "ctx")]
    options = [inspect.Parameter(one.name, keyword, default=one.default) for one in found]
    solve.__annotations__ = {one.name: kinds.get(type(one.default), type(one.default)) for one in found}
    vars(solve)["__signature__"] = inspect.Signature([*own, *options])


def _relayed(bridge: _Bridge, thread: threading.Thread) -> Steps:
    """The thread's requests as a coroutine's; closing it stops the thread."""
    try:
        while True:
            said = bridge.out.get()
            if isinstance(said, Evaluate):
                answer = yield said
                bridge.back.put(answer)
            elif isinstance(said, Step):
                yield said
            elif isinstance(said, BaseException):
                raise said
            else:
                return said
    finally:
        bridge.back.put(None)
        thread.join(timeout=60)


def as_k_diffusion(
    solver: Solver, parameterisation: Parameterisation, noise: NoiseSource | None = None
) -> Callable[..., Tensor]:
    """One of our samplers under k-diffusion's signature; `model(x, sigma [B], **extra_args)` -> denoised.

    `noise` is the run's source (seed 0 unless given). The state is taken as it is: no noise is added.
    """

    def function(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
        disable: bool | None = None,
        **options: Any,
    ) -> Tensor:
        levels = checked_sigmas(sigmas.tolist(), solver)
        run = SolverRun(
            solver, x, levels, context_of(solver, x, levels, parameterisation, noise or ComfyNoise(0)), options
        )
        steps = drive(run, _calling(model, extra_args or {}))
        while True:
            try:
                tick = next(steps)
            except StopIteration as end:
                result: Tensor = end.value
                return result.clone()
            if callback is not None:
                callback({"x": tick.x, "i": tick.step, "sigma": tick.sigma, "denoised": tick.denoised})

    return function


def _calling(model: Callable[..., Tensor], extra: Mapping[str, Any]) -> Denoiser:
    def denoiser(x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return Prediction(model(x, x.new_full((x.shape[0],), sigma), **extra))

    return denoiser
