"""Every combination of samplers, schedules, step counts, guidance, step caches and seeds, and what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome, run_cells
from sigmagraph.engine.compose.comparison.measures import csv_bytes, distances, drifts, mean_distances
from sigmagraph.engine.compose.comparison.sheet import contact_sheet
from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.errors import BadValue, NodeFailed
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.writing import make_folder, write_file
from sigmagraph.nodes.sampling.step_caches import written_cache
from sigmagraph.nodes.support.graph_names import sampler_names, schedule_names

__all__ = ["PLOTS", "Comparison", "can_plot", "compare", "read_reference"]

T = TypeVar("T", int, float)
FINER = 8  # the reference has this many times the most steps asked for, unless it is given
PLOTS = "the plots, which need matplotlib: `pip install 'sigmagraph[plots]'`"


@dataclass(frozen=True)
class Comparison:
    """What each cell gave, and the references (one per seed and guidance) that distances are measured to."""

    outcomes: Sequence[CellOutcome]
    references: Sequence[CellOutcome]

    @cached_property
    def distances(self) -> dict[Cell, float]:
        """Per cell that worked, how far its latent is from its own reference (rms, in units of its spread)."""
        found: dict[Cell, float] = {}
        for exact in self.references:
            assert exact.latent is not None
            alike = [outcome for outcome in self.outcomes if _drawn(outcome.cell) == _drawn(exact.cell)]
            found |= distances(alike, exact.latent)
        return found

    @cached_property
    def drifts(self) -> dict[Cell, float]:
        """Per cell under a step cache, how far it is from the same cell without one."""
        return drifts(self.outcomes)

    def ranking(self) -> list[tuple[Cell, float, float]]:
        """(cell without its seed, evaluations, distance as the mean over seeds), the nearest first."""
        means = mean_distances(self.outcomes, self.distances)
        cost = {replace(outcome.cell, seed=None): outcome.evaluations for outcome in self.outcomes}
        return sorted(((cell, cost[cell], mean) for cell, mean in means.items()), key=lambda row: row[2])

    def files(self) -> dict[str, bytes]:
        """Contact sheet, table and, where matplotlib is installed, the plots; by file name."""
        files = {
            "contact_sheet.png": contact_sheet(self.outcomes),
            "cells.csv": csv_bytes(self.outcomes, self.distances),
        }
        if can_plot():
            from sigmagraph.engine.compose.comparison.plots import sigma_curves, work_precision

            reference = replace(self.references[0].cell, seed=None, guidance=None)
            files["work_precision.png"] = work_precision(self.outcomes, self.distances, reference)
            files["sigmas.png"] = sigma_curves(self.outcomes)
        return files

    def write(self, folder: str | Path) -> list[Path]:
        """The same into a folder, each whole or not at all; the paths."""
        place = make_folder(Path(folder))
        return [write_file(place / name, data) for name, data in self.files().items()]


def compare(
    space: Workspace,
    workflow: Workflow,
    samplers: Sequence[str],
    schedules: Sequence[str],
    steps: Sequence[int],
    seeds: Sequence[int],
    reference: str,
    began: Callable[[str], None] = lambda cell: None,
    guidance: Sequence[float] = (),
    caches: Sequence[str] = (),
) -> Comparison:
    """Run every combination; `began` hears of each cell before it runs. A cell that fails is an outcome with a problem.

    `caches` (`first_block:0.1`): every combination runs without a step cache, and under each of these.

    A bare name means what it means in a graph. Without `seeds` or `guidance` it is the workflow's own.
    """
    for place, given in (("samplers", samplers), ("schedules", schedules), ("steps", steps)):
        if isinstance(given, str) or not given:
            raise BadValue(place, given, "a list with at least one entry")
    sampler_names, schedule_names = _bare(samplers), _bare(schedules)
    for text in caches:
        written_cache(text)
    drawn = [(scale, seed) for scale in _each(guidance) for seed in _each(seeds)]
    cells = [
        Cell(a, b, n, seed, scale, cache)
        for a in sampler_names
        for b in schedule_names
        for cache in dict.fromkeys(["", *caches])
        for n in sorted({*steps})
        for scale, seed in drawn
    ]
    exact = [replace(read_reference(reference, max(steps)), seed=seed, guidance=scale) for scale, seed in drawn]
    outcomes = run_cells(space, workflow, [*exact, *cells], began)
    references = outcomes[: len(exact)]
    for outcome in references:
        if outcome.latent is None:
            raise NodeFailed("reference", str(outcome.cell), outcome.problem)
    return Comparison(outcomes[len(exact) :], references)


def _each(values: Sequence[T]) -> list[T | None]:
    """Every value once; without any, the workflow's own."""
    every: list[T | None] = list(dict.fromkeys(values))
    return every or [None]


def _drawn(cell: Cell) -> tuple[int | None, float | None]:
    """What a cell has in common with its reference."""
    return cell.seed, cell.guidance


def can_plot() -> bool:
    """Whether matplotlib can be imported: one that is there, but built for another numpy, draws nothing."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def read_reference(text: str, most_steps: int) -> Cell:
    """SAMPLER/SCHEDULE[/STEPS] as a cell; without a number it has eight times the most steps asked for."""
    if not isinstance(text, str):
        raise BadValue("--reference", text, "SAMPLER/SCHEDULE or SAMPLER/SCHEDULE/STEPS")
    sampler, _, rest = text.partition("/")
    schedule, _, count = rest.partition("/")
    [sampler], [schedule] = _bare([sampler]), _bare([schedule])
    if not sampler or not schedule or (count and not count.isdecimal()):
        raise BadValue("--reference", text, "SAMPLER/SCHEDULE or SAMPLER/SCHEDULE/STEPS")
    return Cell(sampler, schedule, int(count) if count else FINER * most_steps)


def _bare(names: Sequence[str]) -> list[str]:
    """Each once; `name@1` is the bare name where a graph means that by it."""
    for name in names:
        if not isinstance(name, str):
            raise BadValue("name of a sampler or schedule", name, "a string")
    known = {*sampler_names(), *schedule_names()}
    return list(dict.fromkeys(name if name in known else name.removesuffix("@1") for name in names))
