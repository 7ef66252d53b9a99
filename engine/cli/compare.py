"""`sigmagraph compare`: one workflow under many samplers, schedules, step counts, guidance and seeds, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, Settings, workspace

if TYPE_CHECKING:
    from sigmagraph.engine.compose.comparison import Comparison

__all__ = ["compare"]


def compare(
    workflow: Annotated[Path, typer.Argument(help="A workflow with one sampler node and a decoder behind it.")],
    samplers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "euler,dpmpp_2m",
    schedules: Annotated[str, typer.Option(help="Names, separated by commas.")] = "sgm_uniform",
    steps: Annotated[str, typer.Option(help="Numbers, separated by commas.")] = "4,8,16,32",
    seeds: Annotated[str, typer.Option(help="Numbers, separated by commas.", show_default="the workflow's own")] = "",
    guidance: Annotated[
        str, typer.Option(help="Numbers, separated by commas.", show_default="the workflow's own")
    ] = "",
    caches: Annotated[
        str, typer.Option(metavar="NAME:NUMBER,...", help="Step caches, beside none: first_block:0.1,taylorseer:2.")
    ] = "",
    reference: Annotated[
        str, typer.Option(metavar="SAMPLER/SCHEDULE[/STEPS]", help="What distances are measured to.")
    ] = "heun/sgm_uniform",
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option(help="Where the results go.", show_default="./output/compare")] = None,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Run every combination; write a contact sheet, a work-precision plot, the sigma curves and a CSV."""
    from sigmagraph.engine.cli.console import out, remark, warn, write_json
    from sigmagraph.engine.compose.comparison import PLOTS, can_plot
    from sigmagraph.engine.compose.comparison import compare as compare_cells
    from sigmagraph.engine.graph.overrides import override

    counts, drawn = _numbers("--steps", steps, 1), _numbers("--seeds", seeds, 0) if seeds else []
    scales = _scales(guidance) if guidance else []
    sampler_names, schedule_names = _parts("--samplers", samplers), _parts("--schedules", schedules)
    cached = _parts("--caches", caches) if caches else []
    space = workspace(home, output or Path.cwd() / "output" / "compare", custom_nodes)
    changed = override(space.read(workflow), settings or [], space.nodes)
    space.require_output()
    with _Bar(
        (len(sampler_names) * len(schedule_names) * len(counts) * (1 + len(cached)) + 1)
        * max(len(drawn), 1)
        * max(len(scales), 1)
    ) as bar:
        found = compare_cells(
            space, changed, sampler_names, schedule_names, counts, drawn, reference, bar.began, scales, cached
        )
    written = found.write(space.output)
    if as_json:
        write_json(_as_values(found, written))
    else:
        for path in written:
            out().print(str(path), markup=False, soft_wrap=True)
    if not can_plot():
        remark(f"skipped: {PLOTS}")
    for outcome in found.outcomes:
        if outcome.problem:
            warn(f"{outcome.cell}: {outcome.problem}")


def _as_values(found: "Comparison", written: list[Path]) -> dict[str, object]:
    cells = [
        {
            "sampler": outcome.cell.sampler,
            "schedule": outcome.cell.schedule,
            "steps": outcome.cell.steps,
            "guidance": outcome.cell.guidance,
            "seed": outcome.cell.seed,
            "evaluations": outcome.evaluations,
            "seconds": outcome.seconds,
            "distance": found.distances.get(outcome.cell),
            "cache": outcome.cell.cache or None,
            "drift_estimate": outcome.drift_estimate,
            "drift": found.drifts.get(outcome.cell),
            "problem": outcome.problem or None,
        }
        for outcome in found.outcomes
    ]
    return {"files": [str(path) for path in written], "cells": cells}


class _Bar:
    """One bar over all cells, and what the current one is."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from sigmagraph.engine.cli.console import say

        console = say()
        columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bars.add_task("", total=total)
        self._done = 0

    def __enter__(self) -> "_Bar":
        self._bars.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._bars.stop()

    def began(self, cell: str) -> None:
        self._bars.update(self._task, description=cell, completed=self._done)
        self._done += 1


def _parts(option: str, text: str) -> list[str]:
    from sigmagraph.engine.errors import BadValue

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadValue(option, text, "names, separated by commas")
    return names


def _scales(text: str) -> list[float]:
    from sigmagraph.engine.errors import BadValue

    try:
        return list(dict.fromkeys(float(word) for word in text.split(",") if word.strip()))
    except ValueError as error:
        raise BadValue("--guidance", text, "numbers, separated by commas") from error


def _numbers(option: str, text: str, lowest: int) -> list[int]:
    from sigmagraph.engine.errors import BadValue

    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) >= lowest for word in words):
        above = "whole numbers above 0" if lowest else "whole numbers, 0 or more"
        raise BadValue(option, text, f"{above}, separated by commas")
    return list(dict.fromkeys(int(word) for word in words))
