"""Widgets that several sampling nodes share, and what a bare sampler name means in a graph."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from sigmagraph.engine.graph.node import Options, Range, Tooltip
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from sigmagraph.engine.sampling.plugins import content_of

__all__ = [
    "OLD_GRAPHS",
    "Fraction",
    "GuidanceScale",
    "SamplerName",
    "ScheduleName",
    "Steps",
    "sampler_names",
    "schedule_names",
]

OLD_GRAPHS = 1  # the revision that a bare sampler or schedule name means: what graphs from elsewhere were made with


def sampler_names() -> list[str]:
    """Every sampler; a bare name is revision 1, as existing graphs mean it, `name@2` is a later one."""
    return _with_revisions({name: solver.revision for name, solver in SOLVERS.items()})


def schedule_names() -> list[str]:
    """Every schedule, with revisions as for samplers."""
    return _with_revisions({name: schedule.revision for name, schedule in SCHEDULES.items()})


def _with_revisions(newest: Mapping[str, int]) -> list[str]:
    later = [f"{name}@{revision}" for name, last in newest.items() for revision in range(2, last + 1)]
    return [*newest, *later]


Steps = Annotated[int, Range(1, 10_000), Tooltip("More steps follow the path more closely and take longer.")]
GuidanceScale = Annotated[
    float,
    Range(0.0, 100.0, step=0.1, round=0.01),
    Tooltip("How strongly the image follows the prompt; 1 leaves the negative out."),
]
SamplerName = Annotated[
    str,
    Options(sampler_names, content=partial(content_of, "sampler")),
    Tooltip("The rule of each step; `sigmagraph samplers` lists them."),
]
ScheduleName = Annotated[
    str,
    Options(schedule_names, content=partial(content_of, "schedule")),
    Tooltip("How the noise levels are spread over the steps."),
]
Fraction = Annotated[
    float, Range(0.0, 1.0, step=0.01), Tooltip("The part of the way that is gone; below 1 the latent shows through.")
]
