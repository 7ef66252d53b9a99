"""`sigmagraph packs`: node packs in a folder: do they load, what do they bring, and what do they reach for."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.errors import MissingFile

if TYPE_CHECKING:
    from sigmagraph.engine.compose.pack_report import Reach
    from sigmagraph.engine.execution.packs import Pack

__all__ = ["packs"]


def packs(
    folder: Annotated[Path, typer.Argument(help="A folder of node packs.")],
    load: Annotated[bool, typer.Option("--load/--no-load", help="Import them too; their code runs here.")] = True,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Say of each node pack whether it loads, and what it imports."""
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.compose.pack_report import reach_of
    from sigmagraph.engine.execution.packs.loader import candidates

    if not folder.is_dir():
        raise MissingFile(folder, "there is no such folder of node packs")
    paths = list(candidates(folder))
    if not paths:
        raise MissingFile(folder, "there are no node packs in it: files NAME.py, or folders with an __init__.py")
    loaded = _loaded(folder, home) if load else {}
    found = {path: (reach_of(path), loaded.get(path)) for path in paths}
    if as_json:
        write_json([_record(path, reach, pack) for path, (reach, pack) in found.items()])
        return
    for path, (reach, pack) in found.items():
        for line in _lines(path, reach, pack):
            out().print(line, markup=False, highlight=False, soft_wrap=True)
    if load:
        works = sum(bool(pack and pack.nodes) for _, pack in found.values())
        remark(f"{works} of {len(found)} packs load")


def _loaded(folder: Path, home: Path | None) -> "dict[Path, Pack]":
    from sigmagraph.engine.compose.packs import load_custom_nodes

    heard: dict[Path, Pack] = {}
    load_custom_nodes([folder], workspace(home).folders, lambda pack: heard.update({pack.path: pack}))
    return heard


def _record(path: Path, reach: "Reach", pack: "Pack | None") -> dict[str, Any]:
    told: dict[str, Any] = {"pack": path.name, **asdict(reach)}
    if pack is not None:
        told |= {"loads": bool(pack.nodes), "classes": sorted(pack.nodes), "problems": list(pack.problems)}
    return told


def _lines(path: Path, reach: "Reach", pack: "Pack | None") -> list[str]:
    """A line for the pack, and one for each thing to know about it."""
    state = ""
    if pack is not None:
        count = len(pack.nodes)
        state = f", {count} {'class' if count == 1 else 'classes'}" if count else ", does not load"
    lines = [f"{path.name}: licence {reach.licence}{state}"]
    lines += [f"    {kind}: {', '.join(names)}" for kind, names in reach.reaches.items()]
    lines += [f"    not Python: {problem}" for problem in reach.unreadable]
    return lines + [f"    problem: {problem}" for problem in (pack.problems if pack is not None else ())]
