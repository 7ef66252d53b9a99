"""Samplers and schedules as JSON values: what programs list and the pages explain."""

import inspect
import math
from collections.abc import Mapping

from sigmagraph.engine.sampling.schedule import SCHEDULES, Schedule
from sigmagraph.engine.sampling.solver import SOLVERS, Noise, Solver

__all__ = ["every_fact", "facts_of"]


def facts_of(part: Solver | Schedule) -> dict[str, object]:
    """Everything declared about a sampler or schedule; `summary` is the first line of its docstring."""
    facts: dict[str, object] = {
        "revision": part.revision,
        "summary": (inspect.getdoc(part.function) or "").partition("\n")[0],
        "source": part.source,
        "remark": part.remark,
        "options": {
            option.name: {
                "default": _in_json(option.default),
                "allowed": option.allowed if option.limits is not None else option.kind.__name__,
            }
            for option in part.options
        },
        "older": [version.revision for version in part.older],
    }
    return facts | (_of_solver(part) if isinstance(part, Solver) else {})


def _in_json(value: object) -> object:
    """A default as JSON has it, which knows no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _of_solver(solver: Solver) -> dict[str, object]:
    return {
        "order": solver.order,
        "evaluations": solver.evaluations,
        "noise": solver.noise.value,
        "is_stochastic": solver.noise is not Noise.NONE,
        "is_adaptive": solver.is_adaptive,
        "needs_uncond": solver.needs_uncond,
        "inverts": solver.inverts,
    }


def every_fact() -> Mapping[str, Mapping[str, dict[str, object]]]:
    """All that are registered here, plugins' among them, by name."""
    return {
        "samplers": {name: facts_of(SOLVERS[name]) for name in sorted(SOLVERS)},
        "schedules": {name: facts_of(SCHEDULES[name]) for name in sorted(SCHEDULES)},
    }
