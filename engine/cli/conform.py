"""`sigmagraph conform`: the laws of the registry, run against anyone's sampler."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, load_packs, workspace

if TYPE_CHECKING:
    from sigmagraph.engine.compose.conformance import Conformance
    from sigmagraph.engine.sampling import Solver

__all__ = ["conform"]

BROKEN = 3


class ModelKind(StrEnum):
    """What the samplers are examined on."""

    ve = "ve"
    flow = "flow"


def conform(
    file: Annotated[
        Path | None, typer.Argument(help="A Python file with an @solver, or with functions of k-diffusion's form.")
    ] = None,
    samplers: Annotated[str, typer.Option(help="Names, separated by commas: of the file, else of all there are.")] = "",
    model: Annotated[ModelKind, typer.Option(help="Variance exploding (k-diffusion's), or a flow.")] = ModelKind.ve,
    output: Annotated[Path | None, typer.Option(help="Where the report goes.", show_default="./output/conform")] = None,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Run the laws over anyone's sampler, no model needed. Exit code 3: a law is broken. The file's code runs here."""
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.compose.conformance import conformance

    load_packs(workspace(home, None, custom_nodes))
    names = [name.strip() for name in samplers.split(",") if name.strip()]
    found = conformance(_chosen(file, names), model.value)
    written = found.write(output or Path.cwd() / "output" / "conform")
    if as_json:
        write_json(found.as_values() | {"files": [str(path) for path in written]})
    else:
        _show(found)
        for path in written:
            out().print(str(path), markup=False, soft_wrap=True)
    if found.broken:
        remark(f"a law is broken by: {', '.join(found.broken)}")
        raise typer.Exit(BROKEN)


def _chosen(file: Path | None, names: list[str]) -> "dict[str, Solver]":
    """The samplers of the file; of ours those that are named."""
    from sigmagraph.engine.errors import BadValue, UnknownName
    from sigmagraph.engine.sampling import find_solver
    from sigmagraph.engine.sampling.conformance.candidates import in_file

    if file is None:
        if not names:
            raise BadValue("conform", "neither a file nor --samplers", "a Python file, or names of samplers")
        return {name: find_solver(name) for name in names}
    found = in_file(file)
    for name in names:
        if name not in found:
            raise UnknownName(f"sampler of {file}", name, found)
    return {name: found[name] for name in names} if names else found


def _show(found: "Conformance") -> None:
    """A block a sampler: each law, whether it holds, and the figure."""
    from sigmagraph.engine.cli.console import columns, out

    for name, findings in found.findings.items():
        out().print(f"{name} ({found.model})", markup=False)
        table = columns("law", "verdict", "figure")
        for one in findings:
            table.add_row(one.law, one.verdict, one.figure)
        out().print(table)
