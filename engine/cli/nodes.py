"""`sigmagraph nodes`: the nodes there are, or one node's inputs and outputs."""

from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, workspace
from sigmagraph.engine.compose.workspace import Workspace
from sigmagraph.engine.errors import as_bound

if TYPE_CHECKING:
    from rich.table import Table

    from sigmagraph.engine.graph.node import Node

__all__ = ["nodes"]

SHOWN_CHOICES = 8


def nodes(
    name: Annotated[str | None, typer.Argument(help="A node class, to see its inputs.")] = None,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """List the nodes, or show one."""
    from sigmagraph.engine.cli.console import out, tell, write_json

    space = workspace(home, None, custom_nodes)
    if as_json:
        chosen = [name] if name is not None else sorted(space.nodes)
        write_json({class_type: space.nodes[class_type].object_info(space.folders) for class_type in chosen})
    elif name is None:
        out().print(_all(space))
    else:
        tell(space.nodes[name].description)
        out().print(_one(space.nodes[name], space))


def _all(space: Workspace) -> "Table":
    from rich.text import Text

    from sigmagraph.engine.cli.console import columns

    table = columns("node", "inputs", "outputs")
    category = None
    for class_type in sorted(space.nodes, key=lambda name: (space.nodes[name].category, name)):
        node = space.nodes[class_type]
        if node.category != category:
            category = node.category
            table.add_row(Text(category, "bold"))
        inputs = ", ".join(declared.name for declared in node.inputs if declared.group != "hidden")
        table.add_row(f"  {class_type}", inputs, ", ".join(output.type for output in node.outputs))
    return table


def _one(node: "Node", space: Workspace) -> "Table":
    from sigmagraph.engine.cli.console import columns

    table = columns("input", "type", "default", "allowed", "", whole=2)
    for declared in node.inputs:
        if declared.group == "hidden":
            continue
        choices = declared.allowed(space.folders)
        allowed = ", ".join(str(choice) for choice in (choices or [])[:SHOWN_CHOICES])
        if choices is not None and len(choices) > SHOWN_CHOICES:
            allowed += f" ... ({len(choices)})"
        if declared.range is not None:
            allowed = f"{as_bound(declared.range.low)} to {as_bound(declared.range.high)}"
        default = str(declared.options.get("default", "")) + (" (optional)" if declared.group == "optional" else "")
        table.add_row(declared.name, declared.type, default, allowed, str(declared.options.get("tooltip", "")))
    for output in node.outputs:
        table.add_row("->", output.type, "", "", output.tooltip or "")
    return table
