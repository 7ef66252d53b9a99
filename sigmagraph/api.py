"""Python's face: sampling with a denoiser of one's own, and running saved workflows. docs/python.md explains it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sigmagraph.engine import sampling
from sigmagraph.engine.compose.choosing import chosen
from sigmagraph.engine.compose.comparison import Comparison
from sigmagraph.engine.compose.comparison import compare as compare_cells
from sigmagraph.engine.compose.plugins import load_plugins
from sigmagraph.engine.compose.run_workflow import Ran, run_workflow
from sigmagraph.engine.compose.workspace import open_workspace
from sigmagraph.engine.errors import BadValue, nearest
from sigmagraph.engine.execution.events import Event
from sigmagraph.engine.graph.overrides import override_values
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling import (
    SCHEDULES,
    SOLVERS,
    ComfyNoise,
    Denoiser,
    NoiseSource,
    Parameterisation,
    Recording,
    Sampling,
    Solver,
    Tick,
    likelihood,
)
from sigmagraph.engine.sampling.caches.caching import CacheReport
from sigmagraph.engine.sampling.schedule import ScheduleFunction
from sigmagraph.engine.sampling.solver import SolverFunction

__all__ = ["Comparison", "compare", "log_likelihood", "run", "sample", "schedule", "sigmas", "solver"]

EDM = sampling.edm(0.002, 80.0)
"""What a denoiser is taken for that says nothing else: x = clean + sigma noise, levels as in Karras 2022, table 1."""

Changes = Mapping[str, Any]
Document = str | Path | Mapping[str, Any] | Workflow


def sample(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    solver: str | Solver | SolverFunction = "euler",
    *,
    seed: int | None = None,
    noise: NoiseSource | int | None = None,
    model: object = None,
    mask: Tensor | None = None,
    recording: Recording | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    on_cached: Callable[[CacheReport], None] | None = None,
    **options: object,
) -> Tensor:
    """Noise the clean `x` [B, ...] to the first sigma and solve to the last; further keywords are the solver's options.

    `denoiser` is any `(x, sigma) -> denoised`, or a guidance such as `Cfg`. `noise` is a seed or a noise source (`seed`
    is the same for a seed; 0 without either). `model` says how signal and noise mix: a `Parameterisation` such as
    `sd3()`, or a loaded model; without it that of the guidance's model, else EDM. `mask` [H, W]: 1 = make anew.
    `on_cached` hears, at the end, what the model's step cache left out.
    """
    if not callable(denoiser):
        raise BadValue("denoiser", denoiser, "a function of (x, sigma) that returns the denoised x, or a guidance: Cfg")
    return Sampling(
        denoiser,
        _state(x),
        _levels(sigmas),
        _parameterisation(model if model is not None else _model_of(denoiser)),
        _solver(solver),
        noise=_noise(seed, noise),
        options=options,
        mask=mask,
        on_cached=on_cached,
    ).run(recording, on_tick=on_tick)


def log_likelihood(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float] | Tensor, *, model: object = None, seed: int = 0
) -> Tensor:
    """The ln p of each clean image of `x` [B, ...] under the denoiser's flow, in nats -> [B]; exact on Gaussians.

    `sigmas` are a schedule's, in either direction, `model` as in `sample`. A last 0 is left out: what is finer than the
    lowest level above it counts as noise. At the highest one states are taken for pure noise. The denoiser must let
    gradients through: of a loaded model, that of `trainable(model).model`.
    """
    rising = sorted(level for level in _levels(sigmas) if level > 0)
    known = _parameterisation(model if model is not None else _model_of(denoiser))
    return likelihood.log_likelihood(denoiser, _state(x), rising, known, seed=seed)


def sigmas(name: str, steps: int, model: object = None, *, denoise: float = 1.0, **options: object) -> list[float]:
    """The noise levels of a schedule: steps + 1 falling numbers. Further keywords are the schedule's options.

    `model` as in `sample`; `denoise` < 1 keeps the last `steps` of a longer schedule, to change a picture only in part.
    """
    levels = _parameterisation(model).levels
    return sampling.run_sigmas(sampling.find_schedule(str(name)), levels, steps, denoise, False, **options)


def solver(name: str, *, order: int, **declared: Any) -> Callable[[SolverFunction], SolverFunction]:
    """Register a generator function as the sampler `name`; a notebook's cell may be run again."""

    def register(function: SolverFunction) -> SolverFunction:
        _forget(SOLVERS, name, function)
        return sampling.solver(name, order=order, **declared)(function)

    return register


def schedule(name: str, **declared: Any) -> Callable[[ScheduleFunction], ScheduleFunction]:
    """Register a function `(levels, steps) -> sigmas` as the schedule `name`; a notebook's cell may be run again."""

    def register(function: ScheduleFunction) -> ScheduleFunction:
        _forget(SCHEDULES, name, function)
        return sampling.schedule(name, **declared)(function)

    return register


def run(
    workflow: Document,
    changes: Changes | None = None,
    *,
    home: str | Path | None = None,
    output: str | Path | None = None,
    custom_nodes: Sequence[str | Path] = (),
    plugins: Sequence[str | Path] = (),
    cache: str | None = None,
    precision: str | None = None,
    memory: str | None = None,
    device: str | None = None,
    compile: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Ran:
    """Run a workflow: a file (JSON of either form, or a picture that carries one), or the document itself.

    `changes` are values by "NODE.INPUT", NODE an id, a title or a class: `{"KSampler.seed": 7}`. Raises what is wrong
    with the workflow, or what a node raised. The other arguments are `sigmagraph run`'s options.
    """
    load_plugins([Path(path) for path in plugins])
    space = open_workspace(_path(home), _path(output), [Path(path) for path in custom_nodes])
    document = space.read(workflow)
    changed = override_values(document, _changes(changes), space.nodes)
    store = space.store(cache)
    try:
        with chosen(precision, memory, device, compile):
            return run_workflow(space, changed, store, on_event)
    finally:
        store.close()


def compare(
    workflow: Document,
    samplers: Sequence[str],
    schedules: Sequence[str] = ("sgm_uniform",),
    steps: Sequence[int] = (4, 8, 16, 32),
    *,
    seeds: Sequence[int] = (),
    guidance: Sequence[float] = (),
    caches: Sequence[str] = (),
    changes: Changes | None = None,
    reference: str = "heun/sgm_uniform",
    home: str | Path | None = None,
    on_cell: Callable[[str], None] = lambda cell: None,
) -> Comparison:
    """Every combination of samplers, schedules, step counts, guidance and seeds on one workflow.

    `caches` are step caches by name and number, `first_block:0.1`: every combination runs without, and under each.
    Distances are root mean squares over the latent, in units of its spread, to `reference`, SAMPLER/SCHEDULE[/STEPS].
    """
    space = open_workspace(_path(home))
    changed = override_values(space.read(workflow), _changes(changes), space.nodes)
    return compare_cells(space, changed, samplers, schedules, steps, seeds, reference, on_cell, guidance, caches)


def _changes(given: Changes | None) -> list[tuple[str, Any]]:
    if given is None or isinstance(given, Mapping):
        return [*(given or {}).items()]
    raise BadValue("changes", given, 'a mapping from "NODE.INPUT" to values: {"KSampler.seed": 7}')


def _state(given: object) -> Tensor:
    if isinstance(given, Tensor) and given.is_floating_point():
        return given
    kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
    raise BadValue("x", kind, "a floating-point tensor [batch, ...], zeros to start from noise alone")


def _levels(given: Sequence[float] | Tensor) -> list[float]:
    """Sigmas as floats; a schedule's name in their place is told how to become them."""
    if isinstance(given, str):
        name = nearest(given, SCHEDULES) or "karras"
        raise BadValue("sigmas", given, f'noise levels, such as sigmagraph.sigmas("{name}", 20)')
    values = given.tolist() if isinstance(given, Tensor) else given
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise BadValue("sigmas", given, "a list of numbers, as sigmagraph.sigmas makes one") from error


def _solver(given: object) -> Solver:
    if isinstance(given, Solver):
        return given
    if isinstance(given, str):
        return sampling.find_solver(given)
    found = [one for one in SOLVERS.values() if one.function is given]
    if not found:
        raise BadValue(
            "solver", given, "a sampler's name, or a function declared with @sigmagraph.solver(name, order=...)"
        )
    return found[0]


def _noise(seed: int | None, noise: NoiseSource | int | None) -> NoiseSource:
    if seed is not None and noise is not None:
        raise BadValue("noise", noise, f"one of seed and noise; seed is {seed}")
    given = noise if noise is not None else seed or 0
    if isinstance(given, bool | float | str) or not (isinstance(given, int) or hasattr(given, "streams")):
        raise BadValue("noise", given, "a seed, which is a whole number, or a noise source such as ComfyNoise(seed)")
    return ComfyNoise(given) if isinstance(given, int) else given


def _parameterisation(model: object) -> Parameterisation:
    """What `model` means: a parameterisation, a loaded model, a checkpoint with one in it; EDM for None."""
    found = EDM if model is None else model
    for name in ("model", "parameterisation"):
        found = getattr(found, name, found)
    if not isinstance(found, Parameterisation):
        raise BadValue("model", model, "a Parameterisation such as sd3() or edm(), or what sigmagraph.load returned")
    return found


def _model_of(denoiser: object) -> object:
    """The loaded model that a guidance asks, if it asks one."""
    predict = getattr(denoiser, "predict", None)
    model = getattr(predict, "__self__", None) or getattr(predict, "model", None)
    return model if hasattr(model, "parameterisation") else None


def _forget(registry: Registry[Any], name: str, function: Callable[..., Any]) -> None:
    """Make room for a function of the same name that the same notebook or prompt defines once more."""
    if function.__module__ == "__main__" and name in registry:
        before = registry[name].function
        if (before.__module__, before.__qualname__) == (function.__module__, function.__qualname__):
            registry.discard(name)


def _path(given: str | Path | None) -> Path | None:
    return Path(given) if given is not None else None
