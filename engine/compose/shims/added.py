"""Samplers and schedules that node packs add to ComfyUI's lists: they become ours, in the process that loads the pack.

A sampler's name stands in `KSampler.SAMPLERS` and its function, of k-diffusion's form, is `sample_NAME` of
`comfy.k_diffusion.sampling`; a schedule's name stands among `SCHEDULERS` and its function in `SCHEDULER_HANDLERS`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from sigmagraph.engine.compose.shims.patching import HANDLERS, SAMPLER_FUNCTIONS, KSampler, SchedulerHandler, handled
from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, Parameterisation
from sigmagraph.engine.sampling.levels import FlowLevels, FluxLevels, Levels
from sigmagraph.engine.sampling.plugins import forget, note
from sigmagraph.engine.sampling.schedule import schedule
from sigmagraph.nodes.support.packs.base_model import ModelSampling
from sigmagraph.nodes.support.packs.samplers import solver_of

__all__ = ["forget_added", "take_in"]

LOG = logging.getLogger("sigmagraph.packs")
ADDED: set[str] = set()  # "sampler NAME" and "schedule NAME"


def forget_added() -> None:
    """What earlier packs of this process added is gone."""
    for entry in ADDED:
        kind, _, name = entry.partition(" ")
        (SOLVERS if kind == "sampler" else SCHEDULES).discard(name)
        HANDLERS.pop(name, None)
        SAMPLER_FUNCTIONS.pop(name, None)
    forget(ADDED)
    ADDED.clear()


def take_in(modules: Mapping[str, ModuleType]) -> None:
    """Register what packs have added to the lists of these modules; what cannot be one is told in the log."""
    samplers, functions = modules["comfy.samplers"], modules["comfy.k_diffusion.sampling"]
    listed = [*KSampler.SAMPLERS, *_names(samplers, "SAMPLER_NAMES"), *_names(samplers, "KSAMPLER_NAMES")]
    for name in _new(listed, SOLVERS):
        function = getattr(functions, f"sample_{name}", None)
        if callable(function):
            _registered("sampler", name, function, partial(_add_sampler, name, function))
    listed = [*KSampler.SCHEDULERS, *_names(samplers, "SCHEDULER_NAMES"), *HANDLERS]
    for name in _new(listed, SCHEDULES):
        if (handler := HANDLERS.get(name)) is not None:
            _registered("schedule", name, handler.handler, partial(_add_schedule, name, handler))


def _new(listed: Iterable[Any], known: Mapping[str, Any]) -> list[str]:
    """Names that are not ours, each once; `@` is how ours name revisions."""
    return [name for name in dict.fromkeys(listed) if isinstance(name, str) and name not in known and "@" not in name]


def _names(module: ModuleType, name: str) -> list[Any]:
    found = getattr(module, name, None)
    return list(found) if isinstance(found, list | tuple) else []


def _registered(kind: str, name: str, function: Any, add: Callable[[], None]) -> None:
    try:
        add()
    except (EngineError, TypeError, ValueError) as error:  # a signature that is not one, an option of an odd name
        LOG.warning("a pack's %s %r is left out: %s", kind, name, error)
        return
    while isinstance(function, partial):
        function = function.func
    note([f"{kind} {name}"], function)
    ADDED.add(f"{kind} {name}")


def _add_sampler(name: str, function: Callable[..., Any]) -> None:
    drops = name in KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
    solver_of(function, name, registry=SOLVERS, drops_penultimate=drops, source="a node pack")
    SAMPLER_FUNCTIONS[name] = function


def _add_schedule(name: str, handler: SchedulerHandler) -> None:
    def spread(levels: Levels, steps: int) -> list[float]:
        """A schedule of a node pack."""
        is_flow = isinstance(levels, FlowLevels | FluxLevels)
        sampling = ModelSampling(Parameterisation(levels, "flow" if is_flow else "eps"))
        made: list[float] = handled(handler, sampling, steps).tolist()
        return made

    schedule(name, exact_length=False, source="a node pack")(spread)
