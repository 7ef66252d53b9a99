"""Python's face: sampling with a denoiser of one's own, and running saved workflows. docs/python.md explains it."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine import sampling
from sigmagraph.engine.compose.arguments import check_callbacks, named_as_arguments, path_of, paths
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
from sigmagraph.engine.sampling.caller_values import whole_number
from sigmagraph.engine.sampling.schedule import ScheduleFunction
from sigmagraph.engine.sampling.solver import SolverFunction
from sigmagraph.engine.sampling.versioned import checked_name

__all__ = ["Comparison", "compare", "log_likelihood", "run", "sample", "schedule", "sigmas", "solver"]

EDM = sampling.edm(0.002, 80.0)
"""What a denoiser is taken for that says nothing else: x = clean + sigma noise, levels as in Karras 2022, table 1."""

STATES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

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
    if recording is not None and not isinstance(recording, Recording):
        raise BadValue("recording", recording, "a Recording(), which is filled on the way")
    check_callbacks(on_tick=on_tick, on_cached=on_cached)
    return Sampling(
        _denoiser(denoiser),
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
    given = _levels(sigmas)
    for place, level in enumerate(given):
        if not 0 <= level < math.inf:
            raise BadValue(f"sigmas[{place}]", level, "a finite number, 0 or more")
    known = _parameterisation(model if model is not None else _model_of(denoiser))
    rising = sorted(level for level in given if level > 0)
    return likelihood.log_likelihood(_denoiser(denoiser), _state(x), rising, known, seed=seed)


def sigmas(name: str, steps: int, model: object = None, *, denoise: float = 1.0, **options: object) -> list[float]:
    """The noise levels of a schedule: steps + 1 falling numbers. Further keywords are the schedule's options.

    `model` as in `sample`; `denoise` < 1 keeps the last `steps` of a longer schedule, to change a picture only in part.
    """
    levels = _parameterisation(model).levels
    if not isinstance(name, str):
        raise BadValue("name", name, "a schedule's name, such as 'karras'")
    count = whole_number("steps", steps, "a whole number, 1 or more")
    return sampling.run_sigmas(sampling.find_schedule(name), levels, count, denoise, False, **options)


def solver(name: str, *, order: int, **declared: Any) -> Callable[[SolverFunction], SolverFunction]:
    """Register a generator function as the sampler `name`; a notebook's cell may be run again."""
    checked_name("sampler", name)

    def register(function: SolverFunction) -> SolverFunction:
        _forget(SOLVERS, name, function)
        return sampling.solver(name, order=order, **declared)(function)

    return register


def schedule(name: str, **declared: Any) -> Callable[[ScheduleFunction], ScheduleFunction]:
    """Register a function `(levels, steps) -> sigmas` as the schedule `name`; a notebook's cell may be run again."""
    checked_name("schedule", name)

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
    on_event: Callable[[Event], None] | None = None,
) -> Ran:
    """Run a workflow: a file (JSON of either form, or a picture that carries one), or the document itself.

    `changes` are values by "NODE.INPUT", NODE an id, a title or a class: `{"KSampler.seed": 7}`. Raises what is wrong
    with the workflow, or what a node raised. The other arguments are `sigmagraph run`'s options.
    """
    check_callbacks(on_event=on_event)
    with named_as_arguments():
        load_plugins(paths("plugins", plugins))
        space = open_workspace(path_of("home", home), path_of("output", output), paths("custom_nodes", custom_nodes))
        changed = override_values(space.read(workflow), _changes(changes), space.nodes)
        store = space.store(cache)
        try:
            with chosen(precision, memory, device, compile):
                return run_workflow(space, changed, store, on_event or (lambda event: None))
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
    on_cell: Callable[[str], None] | None = None,
) -> Comparison:
    """Every combination of samplers, schedules, step counts, guidance and seeds on one workflow.

    `caches` are step caches by name and number, `first_block:0.1`: every combination runs without, and under each.
    Distances are root mean squares over the latent, in units of its spread, to `reference`, SAMPLER/SCHEDULE[/STEPS].
    """
    check_callbacks(on_cell=on_cell)
    lists = {"steps": steps, "seeds": seeds, "guidance": guidance, "caches": caches}
    for name, values in (lists | {"samplers": samplers, "schedules": schedules}).items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise BadValue(name, values, "a list")
    with named_as_arguments():
        space = open_workspace(path_of("home", home))
        changed = override_values(space.read(workflow), _changes(changes), space.nodes)
        began = on_cell or (lambda cell: None)
        return compare_cells(space, changed, samplers, schedules, steps, seeds, reference, began, guidance, caches)


def _changes(given: object) -> list[tuple[str, Any]]:
    if given is None or (isinstance(given, Mapping) and all(isinstance(name, str) for name in given)):
        return [*(given or {}).items()]
    raise BadValue("changes", given, 'a mapping from "NODE.INPUT" to values: {"KSampler.seed": 7}')


def _denoiser(given: object) -> Denoiser:
    if callable(given) and not isinstance(given, type):
        return given
    raise BadValue("denoiser", given, "a function of (x, sigma) that returns the denoised x, or a guidance: Cfg")


def _state(given: object) -> Tensor:
    allowed = "a floating-point tensor [batch, ...], zeros to start from noise alone"
    if not isinstance(given, Tensor):
        raise BadValue("x", type(given).__name__, allowed)
    if given.dtype not in STATES:
        raise BadValue("x", given.dtype, allowed + "; in " + ", ".join(str(dtype) for dtype in STATES))
    if given.ndim == 0 or given.numel() == 0 or given.is_meta or given.layout is not torch.strided:
        raise BadValue("x", f"shape {tuple(given.shape)}, {given.layout}, on {given.device}", allowed)
    if not bool(given.isfinite().all()):
        raise BadValue("x", "a tensor with NaN or infinity in it", "finite numbers")
    return given


def _levels(given: Sequence[float] | Tensor) -> list[float]:
    """Sigmas as floats; a schedule's name in their place is told how to become them."""
    if isinstance(given, str):
        name = nearest(given, SCHEDULES) or "karras"
        raise BadValue("sigmas", given, f'noise levels, such as sigmagraph.sigmas("{name}", 20)')
    try:
        if isinstance(given, bytes | Mapping):
            raise TypeError
        values = given.tolist() if isinstance(given, Tensor) else given
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
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
    if hasattr(noise, "streams") and not isinstance(noise, type):
        return noise  # type: ignore[return-value]  # what has streams is a source
    allowed = "a seed, which is a whole number, or a noise source such as ComfyNoise(seed)"
    if noise is None:
        return ComfyNoise(0 if seed is None else whole_number("seed", seed, "a whole number from 0 to 2^64 - 1"))
    return ComfyNoise(whole_number("noise", noise, allowed))


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
    if getattr(function, "__module__", "") == "__main__" and name in registry:
        before = registry[name].function
        if (before.__module__, before.__qualname__) == (function.__module__, function.__qualname__):
            registry.discard(name)
