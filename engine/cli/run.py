"""`sigmagraph run`: a workflow file in, pictures out."""

from pathlib import Path
from typing import Annotated

import typer

from sigmagraph.engine.cli.options import (
    AsJson,
    CacheBudget,
    Compile,
    CustomNodes,
    DeviceName,
    Form,
    FormOption,
    Home,
    Memory,
    Plugins,
    Precision,
    Settings,
    WatchEdits,
    workspace,
)

__all__ = ["run"]


def run(
    workflow: Annotated[Path, typer.Argument(help="A workflow (API or editor form), or a picture that carries one.")],
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option(help="Where pictures go.", show_default="./output")] = None,
    cache: CacheBudget = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a trace for Perfetto or chrome://tracing.")
    ] = None,
    custom_nodes: CustomNodes = None,
    watch_edits: WatchEdits = False,
    form: FormOption = Form.auto,
    precision: Precision = None,
    memory: Memory = None,
    device: DeviceName = None,
    compile_: Compile = None,
    as_json: AsJson = False,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Run a workflow and print the path of each picture."""
    from sigmagraph.engine.cli.console import write_json
    from sigmagraph.engine.cli.report import Report
    from sigmagraph.engine.compose.choosing import Loads, choose, memory_plan
    from sigmagraph.engine.compose.run_workflow import execute_graph
    from sigmagraph.engine.execution.trace import Trace
    from sigmagraph.engine.graph.overrides import override

    choose(precision, memory, device, compile_)
    loaded = Loads()
    space = workspace(home, output, custom_nodes, watches_edits=watch_edits)
    changed = override(space.read(workflow, form.value), settings or [], space.nodes)
    graph = space.validated(changed)
    space.require_output()
    memory_plan(graph, space.folders).require()
    with Report({node_id: node.title for node_id, node in changed.nodes.items()}, space) as report:
        store, record = space.store(cache), Trace()
        result = execute_graph(space, graph, changed, store, record.listener(workflow.name, report))
        store.close()
    if trace is not None:
        record.write(trace)
    result.or_raise()
    if as_json:
        write_json(report.written(result) | loaded.written())
    else:
        report.finish(loaded.lines())
