"""What a sampler's or schedule's name means in a graph: one rule, one place.

`name@2` is that revision and `name@comfyui-0.3` what that ComfyUI computes. A bare name is what the ComfyUI of the
setting `comfyui` computes; without the setting, the newest whose changes are known. Numbers were recorded up to 0.8;
later changes are of options and names (docs/samplers.md).
"""

import os

from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, Schedule, Solver, find_schedule, find_solver
from sigmagraph.engine.sampling.plugins import content_of
from sigmagraph.engine.sampling.versioned import Revision, Versioned, comfyui_version

__all__ = [
    "COMFYUI",
    "bare_revision",
    "chosen_comfyui",
    "content",
    "sampler_names",
    "schedule_in_graph",
    "schedule_names",
    "solver_in_graph",
]

VARIABLE = "SIGMAGRAPH_COMFYUI"
COMFYUI = "0.46"  # the newest whose changes are known
ORIGINAL = 1  # of every sampler: what ComfyUI 0.3 computes, or the first of ours


def bare_revision() -> Revision:
    """The revision that a bare name means."""
    return f"comfyui-{os.environ.get(VARIABLE) or COMFYUI}"


def chosen_comfyui() -> tuple[int, ...]:
    """The version of that ComfyUI, for nodes that have changed between versions."""
    return comfyui_version(str(bare_revision()))


def solver_in_graph(name: str) -> Solver:
    """The sampler that a graph names."""
    return find_solver(name, bare_revision())


def schedule_in_graph(name: str) -> Schedule:
    """The schedule that a graph names."""
    return find_schedule(name, bare_revision())


def sampler_names() -> list[str]:
    """Every bare name, then those with a revision."""
    return [*SOLVERS, *(name for solver in SOLVERS.values() for name in _revisions(solver))]


def schedule_names() -> list[str]:
    """Every schedule, as for samplers."""
    return [*SCHEDULES, *(name for schedule in SCHEDULES.values() for name in _revisions(schedule))]


def content(kind: str, name: str) -> str:
    """What stands behind a name that does not say it all, for cache keys: a plugin's file, or a ComfyUI's revision."""
    if kind == "sampler" and name in SOLVERS:
        meant = solver_in_graph(name)
        return content_of(kind, name) or ("" if meant.revision == ORIGINAL else str(meant.revision))
    return content_of(kind, name)


def _revisions(part: Versioned) -> list[str]:
    """The revisions to choose from beside the bare name: `@1` is one where ComfyUI's own have parted."""
    has_parted = any(one.since for one in part.older)
    every = sorted([part, *part.older], key=lambda one: str(one.revision))
    return [str(one) for one in every if has_parted or one.revision != ORIGINAL]
