"""The command line's front: which commands there are, and what becomes of an error. Imports nothing heavy."""

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from sigmagraph.engine.cli import (
    check,
    compare,
    endpoints,
    fetch,
    keys,
    models,
    nodes,
    plan,
    publish,
    replay,
    run,
    samplers,
    serve,
)
from sigmagraph.engine.errors import EngineError

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """The commands in the order given, with every `EngineError` turned into one message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EngineError as error:
            from sigmagraph.engine.cli.console import complain, remark

            complain(error)
            for line in fetch.advice(error):
                remark(line)
            raise typer.Exit(1) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


app = typer.Typer(
    name="sigmagraph",
    cls=Commands,
    help="Make images from saved node graphs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("replay")(replay.replay)
app.command("serve")(serve.serve)
app.add_typer(keys.keys, name="keys")
app.add_typer(endpoints.endpoints, name="endpoints")
app.command("publish")(publish.publish)
app.command("compare")(compare.compare)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("nodes")(nodes.nodes)
app.command("samplers")(samplers.samplers)
app.command("models")(models.models)
app.command("fetch")(fetch.fetch)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the installed command."""
    app(args=arguments, prog_name="sigmagraph")
