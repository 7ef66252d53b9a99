"""`sigmagraph compare`: one workflow under many samplers, schedules and step counts, side by side."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import Home, Plugins, workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigmagraph.engine.compose.comparison.cells import Cell, CellOutcome
    from sigmagraph.engine.execution.events import Event

__all__ = ["compare"]

FINER = 8  # the reference has this many times the most steps asked for, unless it is given
REFERENCE = "heun/sgm_uniform"


def compare(
    workflow: Annotated[Path, typer.Argument(help="A workflow with one sampler node and a decoder behind it.")],
    samplers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "euler,dpmpp_2m",
    schedules: Annotated[str, typer.Option(help="Names, separated by commas.")] = "sgm_uniform",
    steps: Annotated[str, typer.Option(help="Numbers, separated by commas.")] = "4,8,16,32",
    reference: Annotated[
        str, typer.Option(metavar="SAMPLER/SCHEDULE[/STEPS]", help="What distances are measured to.")
    ] = REFERENCE,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NODE.INPUT=VALUE", help="Change an input first.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the results go.", show_default="./output/compare")] = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Run every combination; write a contact sheet, a work-precision plot, the sigma curves and a CSV."""
    from sigmagraph.engine.compose.comparison.cells import Cell, run_cells
    from sigmagraph.engine.graph.overrides import override

    counts = _counts(steps)
    rules, spacings = _parts("--samplers", samplers), _parts("--schedules", schedules)
    cells = [Cell(a, b, n) for a in rules for b in spacings for n in counts]
    finest = _reference(reference, max(counts))
    space = workspace(home, output or Path.cwd() / "output" / "compare")
    changed = override(space.load(workflow), settings or [], space.nodes)
    space.require_output()
    bars = _Bars(len(cells) + 1)
    with bars:
        exact, *outcomes = run_cells(space, changed, [finest, *cells], bars.began)
    _write(space.output, outcomes, exact)


class _Bars:
    """One bar over all cells, and what the current one is."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from sigmagraph.engine.cli.console import say

        console = say()
        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bars.add_task("", total=total)
        self._done = 0

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(self, *failure: object) -> None:
        self._bars.stop()

    def began(self, cell: "Cell") -> "Callable[[Event], None]":
        self._bars.update(self._task, description=str(cell), completed=self._done)
        self._done += 1
        return lambda event: None


def _write(folder: Path, outcomes: "list[CellOutcome]", exact: "CellOutcome") -> None:
    """The files, each whole or not at all; then what failed."""
    from sigmagraph.engine.cli.console import out, remark, warn
    from sigmagraph.engine.compose.comparison.measures import csv_bytes, distances
    from sigmagraph.engine.compose.comparison.sheet import contact_sheet
    from sigmagraph.engine.errors import NodeFailed
    from sigmagraph.engine.writing import write_file

    if exact.latent is None:
        raise NodeFailed("reference", str(exact.cell), exact.problem)
    away = distances(outcomes, exact.latent)
    files = {"contact_sheet.png": contact_sheet(outcomes), "cells.csv": csv_bytes(outcomes, away)}
    if find_spec("matplotlib") is not None:
        from sigmagraph.engine.compose.comparison.plots import sigma_curves, work_precision

        files["work_precision.png"] = work_precision(outcomes, away, exact.cell)
        files["sigmas.png"] = sigma_curves(outcomes)
    else:
        remark("no plots without matplotlib; `pip install 'sigmagraph[plots]'` brings it")
    for name, data in files.items():
        out().print(str(write_file(folder / name, data)), markup=False, soft_wrap=True)
    for each in outcomes:
        if each.problem:
            warn(f"{each.cell}: {each.problem}")


def _parts(option: str, text: str) -> list[str]:
    """Samplers or schedules; `name@1` is what a graph means by the bare name."""
    from sigmagraph.engine.errors import BadValue

    names = list(dict.fromkeys(name.removesuffix("@1") for name in _names(text)))
    if not names:
        raise BadValue(option, text, "names, separated by commas")
    return names


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _counts(text: str) -> list[int]:
    from sigmagraph.engine.errors import BadValue

    words = _names(text)
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise BadValue("--steps", text, "whole numbers above 0, separated by commas")
    return sorted({int(word) for word in words})


def _reference(text: str, most_steps: int) -> "Cell":
    from sigmagraph.engine.compose.comparison.cells import Cell
    from sigmagraph.engine.errors import BadValue

    sampler, _, rest = text.partition("/")
    schedule, _, count = rest.partition("/")
    sampler, schedule = sampler.removesuffix("@1"), schedule.removesuffix("@1")
    if not sampler or not schedule or (count and not count.isdecimal()):
        raise BadValue("--reference", text, "SAMPLER/SCHEDULE or SAMPLER/SCHEDULE/STEPS")
    return Cell(sampler, schedule, int(count) if count else FINER * most_steps)
