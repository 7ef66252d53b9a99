"""`--plugin FILE`: samplers and schedules of the user's own, there before a command reads its workflow."""

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import BadValue, EngineError

__all__ = ["Plugins", "load_plugins"]


def load_plugins(files: list[Path] | None) -> list[Path] | None:
    """Register what installed packages offer, then what the files hold."""
    from engine.sampling.plugins import load_file, load_installed

    load_installed()
    for file in files or ():
        try:
            load_file(file)
        except EngineError:
            raise
        except Exception as error:  # code of the user's own: whatever it raises is their message
            problem = f"{type(error).__name__}: {error}"
            raise BadValue("--plugin", str(file), f"a Python file that loads; it raised {problem}") from error
    return files


Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", callback=load_plugins, help="A Python file with samplers of your own."),
]
