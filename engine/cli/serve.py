"""`sigmagraph serve`: the server. Torch stays out of this process: workers have it.

Its options are the fields of `Settings`: a setting is declared there and nowhere else. They are made when the command
is called, so that `sigmagraph --help` need not import them.
"""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmagraph.engine.shipped import SHIPPED

if TYPE_CHECKING:
    from sigmagraph.engine.server.settings import Settings

__all__ = ["CONTEXT", "serve"]

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""What the front leaves to the command itself: everything behind its name."""


def serve(context: typer.Context) -> None:
    """Start the server: the editor in a browser, and ComfyUI's HTTP and WebSocket API."""
    inner = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    inner.command("serve")(_with_options(_serve))
    inner(context.args, prog_name="sigmagraph serve", standalone_mode=False)


def _serve(config: Path | None, print_config: bool, given: dict[str, Any]) -> None:
    from sigmagraph.engine.cli.console import out, remark

    settings = _settings(config, given)
    if print_config:
        from sigmagraph.engine.server.settings import as_toml

        out().print(as_toml(settings), end="", markup=False, soft_wrap=True)
        return
    from sigmagraph.engine.compose.serving import run

    run(settings, remark if sys.stderr.isatty() else None)


def _with_options(work: Callable[[Path | None, bool, dict[str, Any]], None]) -> Callable[..., None]:
    """A function whose signature has an option for every setting, as typer reads it."""
    from sigmagraph.engine.server.settings import options

    def command(config: Path | None, print_config: bool, **given: Any) -> None:
        """Start the server: the editor in a browser, and ComfyUI's HTTP and WebSocket API.

        Every option is also a setting in the TOML file and a variable SIGMAGRAPH_<NAME>; options win.
        """
        work(config, print_config, {name: value for name, value in given.items() if value not in (None, [])})

    file = typer.Option(help="TOML file of settings.", envvar="SIGMAGRAPH_CONFIG")
    show = typer.Option("--print-config", help="Print the settings in force and end.")
    hints: dict[str, Any] = {"config": Annotated[Path | None, file], "print_config": Annotated[bool, show]}
    for setting in options():
        kind: Any = bool if setting.is_switch else list[str] if setting.is_list else str
        metavar = None if setting.is_switch else setting.kind
        option = typer.Option(
            setting.flag, help=setting.help, metavar=metavar, show_default=False, rich_help_panel="Settings"
        )
        hints[setting.name] = Annotated[kind | None, option]
    command.__annotations__ = hints
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect looks at first
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if name == "print_config" else None,
                annotation=hint,
            )
            for name, hint in hints.items()
        ]
    )
    return command


def _settings(config: Path | None, flags: dict[str, Any]) -> "Settings":
    """The settings in force. What no source names lies in the home, which is the current folder unless named."""
    from sigmagraph.engine.errors import MissingFile
    from sigmagraph.engine.server.settings import load_settings

    settings = load_settings(config, os.environ, flags)
    home = (settings.home or Path.cwd()).resolve()
    for name in ("home", "workflows", "endpoints"):
        folder = getattr(settings, name)
        is_made = name == "home" and settings.demo
        if folder is not None and not folder.is_dir() and not is_made:
            raise MissingFile(folder, f"there is no such folder; the setting {name!r} names it")
    return settings.model_copy(
        update={
            "home": home,
            "output": settings.output or home / "output",
            "database": settings.database or f"sqlite:///{home / 'user' / 'jobs.sqlite'}",
            "workflows": settings.workflows or SHIPPED / "workflows",
        }
    )
