"""`sigmagraph plan`: what a run would do, node by node, without doing it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import (
    AsJson,
    CacheBudget,
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
from sigmagraph.engine.units import counted

if TYPE_CHECKING:  # imported when the command runs: `--help` must stay quick
    from rich.table import Table

    from sigmagraph.engine.execution.describe import PlanLine

__all__ = ["plan"]


def plan(
    workflow: Annotated[Path, typer.Argument(help="A workflow (API or editor form), or a picture that carries one.")],
    settings: Settings = None,
    cache: CacheBudget = None,
    precision: Precision = None,
    device: DeviceName = None,
    custom_nodes: CustomNodes = None,
    form: FormOption = Form.auto,
    as_json: AsJson = False,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Print what would run, what is cached, and what each node needs."""
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.compose.choosing import choose
    from sigmagraph.engine.execution.describe import describe
    from sigmagraph.engine.graph.overrides import override
    from sigmagraph.engine.graph.plan import plan as planned
    from sigmagraph.engine.graph.sweep import CACHES

    choose(precision, device=device)
    space = workspace(home, None, custom_nodes)
    document = space.read(workflow, form.value)
    graph = space.validated(override(document, settings or [], space.nodes))
    store = space.store(cache)
    lines = describe(planned(graph, space.folders), store)
    store.close()
    if as_json:
        write_json([asdict(line) for line in lines])
        return
    out().print(_table(lines))
    runs = sum(line.fate == "runs" and line.same_as is None for line in lines)
    remark(f"{runs} of {counted(len(lines), 'node')} would run")
    caching = {class_type for class_type, _ in CACHES.values()}
    if found := [line.node_id for line in lines if line.class_type in caching and line.fate != "unneeded"]:
        remark(f"step cache in node {', '.join(found)}: how many evaluations it leaves out is known after the run")


def _table(lines: "list[PlanLine]") -> "Table":
    from sigmagraph.engine.cli.console import columns

    table = columns("node", "class", "title", "lane", "", "needs", whole=2)
    for line in lines:
        fate = f"same as {line.same_as}" if line.same_as else line.fate
        needs = ", ".join(f"{name} <- {source}" for name, source in line.needs.items())
        table.add_row(line.node_id, line.class_type, line.title, line.lane, fate, needs)
    return table
