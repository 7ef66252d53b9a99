"""`sigmagraph endpoints`: the published workflows: list them, check them, try one here without a server."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, workspace
from sigmagraph.engine.shipped import ENDPOINTS

__all__ = ["VARIABLE", "endpoints"]

VARIABLE = "SIGMAGRAPH_ENDPOINTS"
"""The server's setting of that name: what is published here is served there."""

endpoints = typer.Typer(help="List, check and try the published workflows.", invoke_without_command=True)
Folder = Annotated[
    Path | None,
    typer.Option("--folder", envvar=VARIABLE, help="The folder.", show_default="workflows/endpoints"),
]
Demo = Annotated[bool, typer.Option("--demo", help="Bound to the demo checkpoint.")]


@endpoints.callback()
def listing(context: typer.Context, folder: Folder = None, as_json: AsJson = False) -> None:
    """List the published workflows (without a further word)."""
    if context.invoked_subcommand is not None:
        return
    from sigmagraph.engine.cli.console import columns, out, write_json
    from sigmagraph.engine.server.endpoints.endpoint import load_endpoints

    found = load_endpoints(folder or ENDPOINTS)
    if as_json:
        write_json({slug: endpoint.manifest.model_dump(mode="json") for slug, endpoint in found.items()})
        return
    table = columns("slug", "title", "parameters", "price")
    for slug, endpoint in found.items():
        price = endpoint.manifest.price
        shown = f"{price.per_call:g} + {price.per_megapixel_step:g} per megapixel and step"
        table.add_row(slug, endpoint.manifest.title, str(len(endpoint.manifest.parameters)), shown)
    out().print(table)


@endpoints.command("check")
def check(
    folder: Folder = None,
    demo: Demo = False,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Hold every manifest against its graph and the nodes; exit code 1 where something is wrong."""
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.server.endpoints.endpoint import declaration_problems, load_endpoints

    found = load_endpoints(folder or ENDPOINTS, is_demo=demo)
    nodes = workspace(home, None, custom_nodes).nodes
    lines = [
        f"{endpoint.path}: {problem}"
        for endpoint in found.values()
        for problem in declaration_problems(endpoint, nodes)
    ]
    if as_json:
        write_json({"endpoints": sorted(found), "problems": lines})
    for line in () if as_json else lines:
        out().print(line, markup=False, soft_wrap=True)
    if lines:
        raise typer.Exit(1)
    if not as_json:
        remark(f"{len(found)} endpoints: nothing wrong")


@endpoints.command("try")
def attempt(
    slug: Annotated[str, typer.Argument(help="As the list shows it.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where pictures go.", show_default="./output")] = None,
    folder: Folder = None,
    demo: Demo = False,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Run one call here, without a server, and print the paths of its pictures."""
    from sigmagraph.engine.cli.console import write_json
    from sigmagraph.engine.cli.report import Report
    from sigmagraph.engine.errors import InvalidWorkflow, UnknownName
    from sigmagraph.engine.execution.cache.memory import MemoryCache
    from sigmagraph.engine.execution.inline import execute
    from sigmagraph.engine.graph.plan import plan
    from sigmagraph.engine.server.endpoints.endpoint import load_endpoints
    from sigmagraph.engine.server.endpoints.translation import translated
    from sigmagraph.engine.server.endpoints.values import read_values

    found = load_endpoints(folder or ENDPOINTS, is_demo=demo)
    if slug not in found:
        raise UnknownName("endpoint", slug, found)
    space, endpoint = workspace(home, output, custom_nodes), found[slug]
    allowed = endpoint.allowed(space.nodes, space.folders)
    values = read_values(endpoint, _read(settings or []), allowed)
    bound = endpoint.bind(values.all, slug)
    try:
        graph = space.validated(bound)
    except InvalidWorkflow as invalid:
        raise translated(endpoint, invalid) from invalid
    space.require_output()
    with Report({node_id: node.title for node_id, node in bound.nodes.items()}, space) as report:
        result = execute(plan(graph, space.folders), space.folders, MemoryCache(), report)
    result.or_raise()
    if as_json:
        write_json(report.written(result))
    else:
        report.finish()


def _read(settings: list[str]) -> dict[str, Any]:
    """`steps=4` is a number, `prompt=a cat` a string; what is not JSON is taken as it stands."""
    from sigmagraph.engine.errors import BadValue

    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadValue("--set", setting, "NAME=VALUE")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values
