"""The command line's front: which commands there are, and what becomes of an error. Imports nothing heavy.

A command is a module of this folder that holds a function, or a group of commands, of its own name.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sigmagraph.engine import cli
from sigmagraph.engine.cli import fetch
from sigmagraph.engine.cli.stdout import within_command
from sigmagraph.engine.errors import EngineError

__all__ = ["app", "main"]

FIRST = ("run", "replay", "serve", "compare", "check", "plan", "nodes", "samplers", "models")
"""How the help begins; further commands follow by name."""
SHARED = ("app", "console", "options", "report", "stdout")
"""Modules that hold no command: commands import them when they run."""


class Commands(TyperGroup):
    """The commands in the order given, with every `EngineError` turned into one message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with within_command():
                return super().invoke(ctx)
        except EngineError as error:
            from sigmagraph.engine.cli.console import complain, remark

            complain(error)
            for line in fetch.advice(error):
                remark(line)
            raise typer.Exit(1) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


app = typer.Typer(name="sigmagraph", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"sigmagraph {version('sigmagraph')}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Make images from saved node graphs."""


def _commands() -> Iterator[tuple[str, Callable[..., None] | typer.Typer, Any]]:
    """Name, function or group, and the settings of its context, if it has any."""
    names = sorted(module.name for module in pkgutil.iter_modules(cli.__path__))
    for name in (*FIRST, *(name for name in names if name not in (*FIRST, *SHARED))):
        module = importlib.import_module(f"{cli.__name__}.{name}")
        command = getattr(module, name, None)
        if command is not None:
            yield name, command, getattr(module, "CONTEXT", None)


for _name, _command, _context in _commands():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name.replace("_", "-"), context_settings=_context)(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the installed command."""
    app(args=arguments, prog_name="sigmagraph")
