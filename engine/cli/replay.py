"""`sigmagraph replay`: run a recorded workflow again and say whether the picture is the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, Settings, workspace
from sigmagraph.engine.compose.workspace import Workspace

if TYPE_CHECKING:  # imported when the command runs: `--help` must not load torch
    from sigmagraph.engine.execution.replay import PictureComparison, Recorded, Verdict
    from sigmagraph.engine.graph.graph import Graph
    from sigmagraph.engine.graph.lock import Lock
    from sigmagraph.engine.graph.workflow import Workflow

__all__ = ["replay"]

DIFFERENT = 3


def replay(
    file: Annotated[Path, typer.Argument(help="A picture that carries a workflow, or a workflow.")],
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would differ; run nothing.")] = False,
    psnr: Annotated[float, typer.Option(help="From this ratio in dB on, a picture is within tolerance.")] = 40.0,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option(help="Where pictures go.", show_default="./output")] = None,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Make a recorded picture again. Exit code 0: identical or within tolerance; 3: different."""
    from sigmagraph.engine.cli.console import warn
    from sigmagraph.engine.execution.replay import judged, output_of, what_differs
    from sigmagraph.engine.graph.lock import lock_of
    from sigmagraph.engine.graph.overrides import override
    from sigmagraph.nodes.support.provenance import sealed

    space = workspace(home, output, custom_nodes)
    recorded = _read(space, file)
    for warning in recorded.workflow.warnings:
        warn(warning)
    changed = override(recorded.workflow, settings or [], space.nodes)
    graph = space.validated(changed)
    target = output_of(recorded, graph)
    now = sealed(lock_of(graph, target, space.folders, recorded.lock), graph.prompt())
    found = what_differs(recorded, changed, now)
    if dry_run:
        _say_dry([str(difference) for difference in found], as_json=as_json)
        return
    made = _run(space, graph, changed, target, recorded.lock)
    verdict = judged(_comparison(recorded, made), found, psnr)
    _say(verdict, made, as_json=as_json)
    if verdict.kind == "different":
        raise typer.Exit(DIFFERENT)


def _read(space: Workspace, file: Path) -> "Recorded":
    from sigmagraph.engine.compose.saved_version import as_saved
    from sigmagraph.engine.compose.stored import stored_workflow
    from sigmagraph.engine.errors import MissingFile
    from sigmagraph.engine.execution.replay import Recorded, read_recorded

    stored = stored_workflow(space.home, file)
    if stored is not None:
        return Recorded(stored)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise MissingFile(file, error.strerror or "cannot be read") from error
    recorded = read_recorded(data, space.declarations)
    if recorded.lock is not None:  # it says itself what its names meant
        return recorded
    return replace(recorded, workflow=as_saved(recorded.workflow, space.remark))


def _run(space: Workspace, graph: "Graph", changed: "Workflow", target: str, lock: "Lock | None") -> Path | None:
    """Run it without any cached result; the picture that answers to the recorded one."""
    from sigmagraph.engine.cli.report import Report
    from sigmagraph.engine.execution.cache.memory import MemoryCache
    from sigmagraph.engine.execution.inline import execute
    from sigmagraph.engine.graph.plan import plan

    space.require_output()
    extra = {"extra_pnginfo": {"workflow": changed.editor}} if changed.editor is not None else {}
    with Report({node_id: node.title for node_id, node in changed.nodes.items()}, space) as report:
        prepared = plan(graph, space.folders, [target])
        result = execute(prepared, space.folders, MemoryCache(), report, extra_data=extra).or_raise()
    pictures = result.ui.get(target, {}).get("images", ())
    place = lock.image if lock is not None else 0
    return space.picture(pictures[place]) if place < len(pictures) else None


def _comparison(recorded: "Recorded", made: Path | None) -> "PictureComparison | None":
    from sigmagraph.engine.server.compare import compare

    if recorded.picture is None or made is None:
        return None
    return compare(recorded.picture, made.read_bytes())


def _say_dry(differences: list[str], *, as_json: bool) -> None:
    from sigmagraph.engine.cli.console import out

    if as_json:
        out().print_json(json.dumps({"dry_run": True, "differences": differences}))
        return
    lines = differences or ["nothing recorded differs"]
    for line in lines:
        out().print(line, markup=False, soft_wrap=True)


def _say(verdict: "Verdict", made: Path | None, *, as_json: bool) -> None:
    from sigmagraph.engine.cli.console import out

    if as_json:
        out().print_json(json.dumps(verdict.written() | {"picture": str(made) if made else None}))
        return
    lines = [str(verdict), *(f"  {difference}" for difference in verdict.differences)]
    if verdict.kind == "different" and not verdict.differences:
        lines.append("  nothing recorded differs: this graph does not repeat itself here")
    for line in [*lines, *([str(made)] if made else [])]:
        out().print(line, markup=False, soft_wrap=True)
