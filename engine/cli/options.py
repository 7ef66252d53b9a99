"""The options that several commands take, and the workspace as a command line user sees it."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sigmagraph.engine.cli.stdout import keep_stdout_for_answers
from sigmagraph.engine.compose.workspace import Workspace, open_workspace

__all__ = [
    "AsJson",
    "CacheBudget",
    "Compile",
    "CustomNodes",
    "DeviceName",
    "Form",
    "FormOption",
    "Home",
    "Memory",
    "Plugins",
    "Precision",
    "Settings",
    "WatchEdits",
    "load_packs",
    "workspace",
]

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", envvar="SIGMAGRAPH_HOME", help="The folder that holds models/ and input/.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.INPUT=VALUE", help="Change an input; NODE is an id, a title or a class."),
]
CustomNodes = Annotated[
    list[Path] | None,
    typer.Option(
        "--custom-nodes", metavar="DIR", help="A folder of node packs; their code runs here.", show_default=False
    ),
]
WatchEdits = Annotated[
    bool, typer.Option("--watch-edits", help="Debug: fail a pack's node that edits an input in place.")
]
CacheBudget = Annotated[
    str | None,
    typer.Option("--cache", metavar="BUDGET", help="memory=4GiB,disk=20GiB, or off.", show_default="memory, no disk"),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        envvar="SIGMAGRAPH_PRECISION",
        help="auto, fp32, bf16, fp16 or fp8; or text=, model=, vae=, with commas.",
        show_default="auto",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        envvar="SIGMAGRAPH_MEMORY",
        help="auto, resident, stream, or what networks may take: 12GB.",
        show_default="auto",
    ),
]
Compile = Annotated[
    str | None,
    typer.Option(
        "--compile",
        envvar="SIGMAGRAPH_COMPILE",
        help="torch.compile for a diffusion model's blocks: auto (on CUDA in `serve`), on or off.",
        show_default="auto",
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device", envvar="SIGMAGRAPH_DEVICE", help="auto, cpu, cuda, cuda:1, xpu or mps.", show_default="auto"
    ),
]


class Form(StrEnum):
    """Of a picture's two workflows, the one that counts (see `engine/graph/reading/carried.py`)."""

    auto = "auto"
    drawing = "drawing"
    prompt = "prompt"


FormOption = Annotated[Form, typer.Option("--form", help="Of a picture that holds both: which workflow counts.")]


def _loaded(files: list[Path] | None) -> list[Path] | None:
    from sigmagraph.engine.compose.plugins import load_plugins

    load_plugins(files or ())
    return files


Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", callback=_loaded, help="A Python file with samplers of your own."),
]


def workspace(
    home: Path | None = None,
    output: Path | None = None,
    custom_nodes: Sequence[Path] | None = None,
    *,
    watches_edits: bool = False,
) -> Workspace:
    """The workspace at `home`, which tells the terminal what it has to tell. Its packs print to stderr."""
    from sigmagraph.engine.cli.console import remark, warn

    keep_stdout_for_answers()
    return open_workspace(home, output, custom_nodes, watches_edits=watches_edits, remark=remark, warn=warn)


def load_packs(space: Workspace) -> None:
    """Load the packs that were named: their code may register samplers and model folders. Without any, nothing is."""
    if space.custom_nodes:
        _ = space.nodes
