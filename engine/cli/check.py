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
from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.errors import InvalidWorkflow, MissingFile
from sigmagraph.engine.units import counted

__all__ = ["check"]

SHOWN = 40


def check(
    workflow: Annotated[
        Path, typer.Argument(help="A workflow (API or editor form), a picture that carries one, or a folder.")
    ],
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
    """Validate a workflow without running it. Exit code 1 where something is wrong, and for a folder without any."""
    from sigmagraph.engine.cli.console import remark, tell, write_json
    from sigmagraph.engine.compose.choosing import choose, memory_plan
    from sigmagraph.engine.graph.overrides import override

    space = workspace(home, None, custom_nodes)
    if workflow.is_dir():
        _survey(space, workflow, as_json=as_json)
        return
    changed = override(space.read(workflow, form.value), settings or [], space.nodes)
    found: dict[str, Any] = {"valid": True, "nodes": len(changed.nodes), "outputs": [], "problems": []}
    try:
        graph = space.validated(changed)
    except InvalidWorkflow as invalid:
        if not as_json:
            raise
        problems = [asdict(problem) if is_dataclass(problem) else str(problem) for problem in invalid.problems]  # type: ignore[arg-type]  # of instances
        write_json(found | {"valid": False, "problems": problems, "warnings": list(changed.warnings)})
        raise typer.Exit(1) from None
    if memory:
        choose(precision, budget, device)
        planned = memory_plan(graph, space.folders)
        found["memory"] = planned.lines()
        for line in () if as_json else planned.lines():
            tell(line)
        planned.require()
    if as_json:
        write_json(found | {"outputs": list(graph.roots), "warnings": list(changed.warnings)})
        return
    remark(f"{counted(len(graph.nodes), 'node')}, {counted(len(graph.roots), 'output')}: nothing wrong")


def _survey(space: Workspace, folder: Path, *, as_json: bool) -> None:
    """Every workflow file below a folder: totals, and the classes that are missing most."""
    import gc

    from rich.progress import Progress

    from sigmagraph.engine.cli.console import say, tell, write_json
    from sigmagraph.engine.compose.survey import files_in, survey, totals

    nodes, declarations = space.nodes, space.declarations
    gc.freeze()  # what is loaded stays: else each full collection walks all of it, between any two files
    files = files_in(folder)
    with Progress(console=say(), transient=True, auto_refresh=False) as progress:  # no thread: processes are copied
        bar = progress.add_task("looking at files", total=len(files))

        def looked_at(count: int) -> None:
            progress.update(bar, advance=count, refresh=True)

        records = list(survey(files, folder, nodes, declarations, space.folders, looked_at=looked_at))
    if not records:
        raise MissingFile(folder, "there is no workflow in it, nor a picture that carries one")
    counted = totals(records)
    if as_json:
        write_json({"totals": counted, "files": [asdict(record) for record in records]})
        return
    for name, count in counted.items():
        if name != "missing classes":
            tell(f"{name}: {count}")
    for missing in counted["missing classes"][:SHOWN]:
        tell(f"{missing['files']:5d} files lack {missing['class']}")
    for record in records:
        if record.state == "refused":
            tell(f"refused: {record.file}: {record.problems[0]}")
