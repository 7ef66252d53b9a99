"""Whose sampler is examined: what a Python file registers, or defines in k-diffusion's form."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.k_diffusion import from_k_diffusion
from sigmagraph.engine.sampling.plugins import load_file
from sigmagraph.engine.sampling.solver import SOLVERS, Noise, Solver

FORM = ("model", "x", "sigmas")
QUIET = {"eta": 0.0, "s_noise": 0.0, "s_churn": 0.0}  # the settings under which functions of that form draw no noise
UNKNOWN = -1  # order of a function that declares none


def in_file(path: Path) -> dict[str, Solver]:
    """The samplers a file registers, and its functions `sample_...(model, x, sigmas, ...)`, by name."""
    before = set(SOLVERS)
    module = load_file(path)
    registered = {name: SOLVERS[name] for name in SOLVERS if name not in before or _is_from(SOLVERS[name], module)}
    found = registered | {name: as_solver(function, name) for name, function in functions_of(module)}
    if not found:
        allowed = "one with an @solver, or functions sample_NAME(model, x, sigmas, ...) of k-diffusion's form"
        raise BadValue("file", str(path), allowed)
    return found


def functions_of(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function of the form, without `sample_`; also those that were imported into the module."""
    for name, value in vars(module).items():
        if name.startswith("sample_") and callable(value):
            first = tuple(inspect.signature(value).parameters)[: len(FORM)]
            if first == FORM:
                yield name.removeprefix("sample_"), value


def as_solver(function: Callable[..., Any], name: str, **declared: Any) -> Solver:
    """A function of the form as a sampler, not registered; attributes `order` and `evaluations` declare what it is."""
    accepted: Mapping[str, Any] = inspect.signature(function).parameters
    noise = Noise.NONE
    if "noise_sampler" in accepted:
        noise = Noise.BROWNIAN if "sde" in name else Noise.SEQUENCE
    order = getattr(function, "order", UNKNOWN)
    declared.setdefault("evaluations", getattr(function, "evaluations", UNKNOWN))
    return from_k_diffusion(function, name, order=order, noise=noise, registry=None, as_ode=QUIET, **declared)


def _is_from(solver: Solver, module: ModuleType) -> bool:
    return solver.function.__module__ == module.__name__
