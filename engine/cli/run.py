"""`sigmagraph run`: a workflow file in, pictures out."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.workspace import Home, workspace

__all__ = ["run"]


def run(
    workflow: Annotated[Path, typer.Argument(help="A workflow (API or editor form), or a PNG that carries one.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NODE.INPUT=VALUE", help="Change an input; NODE is an id or a title."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where pictures go.", show_default="./output")] = None,
    home: Home = None,
) -> None:
    """Run a workflow and print the path of each picture."""
    from engine.cli.console import warn
    from engine.cli.overrides import override
    from engine.cli.report import Report
    from engine.execution.cache import MemoryCache
    from engine.execution.run import execute
    from engine.graph.plan import plan

    space = workspace(home, output)
    document = space.load(workflow)
    for warning in document.warnings:
        warn(warning)
    changed = override(document, settings or [], space.nodes)
    graph = space.validated(changed)
    space.require_output()
    extra = {"extra_pnginfo": {"workflow": document.editor}} if document.editor is not None else {}
    with Report({node_id: node.title for node_id, node in changed.nodes.items()}, space) as report:
        result = execute(plan(graph, space.folders), space.folders, MemoryCache(), report, extra_data=extra)
    result.or_raise()
    report.finish()
