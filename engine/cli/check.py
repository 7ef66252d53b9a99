"""`sigmagraph check`: everything that is wrong with a workflow, without running it."""

from pathlib import Path
from typing import Annotated

import typer

from sigmagraph.engine.cli.options import Form, FormOption, Home, Plugins, workspace

__all__ = ["check"]


def check(
    workflow: Annotated[Path, typer.Argument(help="A workflow (API or editor form), or a PNG that carries one.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NODE.INPUT=VALUE", help="Change an input first.")
    ] = None,
    form: FormOption = Form.auto,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Validate a workflow without running it."""
    from sigmagraph.engine.cli.console import remark, warn
    from sigmagraph.engine.graph.overrides import override

    space = workspace(home)
    document = space.load(workflow, form.value)
    for warning in document.warnings:
        warn(warning)
    graph = space.validated(override(document, settings or [], space.nodes))
    outputs = "1 output" if len(graph.roots) == 1 else f"{len(graph.roots)} outputs"
    remark(f"{len(graph.nodes)} nodes, {outputs}: nothing wrong")
