"""`sigmagraph check`: everything that is wrong with a workflow, without running it."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sigmagraph.engine.cli.options import (
    AsJson,
    CustomNodes,
    DeviceName,
    Form,
    FormOption,
    Home,
    Plugins,
    Precision,
    Settings,
    workspace,
)
from sigmagraph.engine.errors import InvalidWorkflow

__all__ = ["check"]


def check(
    workflow: Annotated[Path, typer.Argument(help="A workflow (API or editor form), or a PNG that carries one.")],
    settings: Settings = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Say what the models take, and where; only headers are read.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="MEMORY", help="As --memory of `run`: auto, stream, 12GB ...")
    ] = None,
    precision: Precision = None,
    device: DeviceName = None,
    form: FormOption = Form.auto,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Validate a workflow without running it. Exit code 1 where something is wrong."""
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.graph.overrides import override

    space = workspace(home, None, custom_nodes)
    changed = override(space.read(workflow, form.value), settings or [], space.nodes)
    found: dict[str, Any] = {"valid": True, "nodes": len(changed.nodes), "outputs": [], "problems": []}
    try:
        graph = space.validated(changed)
    except InvalidWorkflow as invalid:
        if not as_json:
            raise
        problems = [asdict(each) if is_dataclass(each) else str(each) for each in invalid.problems]  # type: ignore[arg-type]  # of instances
        write_json(found | {"valid": False, "problems": problems, "warnings": list(changed.warnings)})
        raise typer.Exit(1) from None
    if memory:
        from sigmagraph.engine.compose.choosing import choose, memory_plan

        choose(precision, budget, device)
        planned = memory_plan(graph, space.folders)
        found["memory"] = planned.lines()
        if not as_json:
            for line in planned.lines():
                out().print(line, soft_wrap=True, markup=False, highlight=False)
        planned.require()
    if as_json:
        write_json(found | {"outputs": list(graph.roots), "warnings": list(changed.warnings)})
        return
    outputs = "1 output" if len(graph.roots) == 1 else f"{len(graph.roots)} outputs"
    remark(f"{len(graph.nodes)} nodes, {outputs}: nothing wrong")
