"""`sigmagraph serve`: the composition root of the server. Torch stays out of this process: workers have it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmagraph.engine.cli.options import Home, workspace
from sigmagraph.engine.shipped import SHIPPED

if TYPE_CHECKING:
    from sigmagraph.engine.server.settings import Settings

__all__ = ["serve"]


def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.", envvar="SIGMAGRAPH_CONFIG")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings in force and end.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.", show_default="8188")] = None,
    open_browser: Annotated[bool | None, typer.Option("--open", help="Open the editor in a browser.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where pictures go.", show_default="HOME/output")] = None,
    database: Annotated[str | None, typer.Option(help="SQLAlchemy URL.", show_default="SQLite in HOME/user")] = None,
    workflows: Annotated[Path | None, typer.Option(help="Workflows for the templates dialog.")] = None,
    frontend: Annotated[Path | None, typer.Option(help="Folder of another frontend build.")] = None,
    extra_model_paths: Annotated[list[Path] | None, typer.Option(help="extra_model_paths.yaml of ComfyUI.")] = None,
    aliases: Annotated[Path | None, typer.Option(help="TOML file of further names of weight files.")] = None,
    custom_nodes: Annotated[list[Path] | None, typer.Option(help="Folder of node packs; runs their code.")] = None,
    plugins: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE", help="A Python file with samplers of your own.")
    ] = None,
    watch_edits: Annotated[bool | None, typer.Option(help="Debug: fail packs' nodes that edit inputs.")] = None,
    endpoints: Annotated[Path | None, typer.Option(help="Folder of published workflows.")] = None,
    demo: Annotated[bool | None, typer.Option(help="Published workflows on the demo checkpoint.")] = None,
    public_url: Annotated[str | None, typer.Option(help="Address in URLs of outputs.")] = None,
    requests_per_minute: Annotated[float | None, typer.Option(help="Rate of a key.", show_default="600")] = None,
    no_keys: Annotated[bool | None, typer.Option("--no-keys", help="Ask for no key although there are some.")] = None,
    keep_requests_s: Annotated[float | None, typer.Option(help="Life of ended calls.", show_default="3600")] = None,
    keep_outputs_s: Annotated[float | None, typer.Option(help="Life of their outputs.", show_default="604800")] = None,
    hosts: Annotated[list[str] | None, typer.Option(help="Further names of this loopback server.")] = None,
    cors_origin: Annotated[str | None, typer.Option(help="Origin that other pages may call from.")] = None,
    compress: Annotated[bool | None, typer.Option(help="Gzip JSON answers.")] = None,
    max_upload_mb: Annotated[float | None, typer.Option(help="Largest request body.", show_default="100")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Largest picture that is decoded.")] = None,
    max_nodes: Annotated[int | None, typer.Option(help="Largest graph.", show_default="20000")] = None,
    previews: Annotated[bool | None, typer.Option(help="Show pictures while sampling.", show_default="on")] = None,
    private_webhooks: Annotated[bool | None, typer.Option(help="Webhooks may go to private addresses.")] = None,
    bare_previews: Annotated[bool | None, typer.Option(help="Previews for old clients too.")] = None,
    in_process: Annotated[bool | None, typer.Option(help="Run nodes in the HTTP process, for debugging.")] = None,
    slots: Annotated[int | None, typer.Option(help="Jobs that take turns on a worker.", show_default="4")] = None,
    batch_evaluations: Annotated[
        int | None, typer.Option(help="Jobs that share a forward; may change last bits.", show_default="1")
    ] = None,
    cache: Annotated[str | None, typer.Option(help="Results kept: memory=4GiB,disk=20GiB, or off.")] = None,
    step_deadline_s: Annotated[
        float | None, typer.Option(help="Silence that ends a worker.", show_default="900")
    ] = None,
    max_queued: Annotated[int | None, typer.Option(help="Jobs that may wait.", show_default="10000")] = None,
    max_connections: Annotated[int | None, typer.Option(help="Connections at once.", show_default="1000")] = None,
    max_queued_per_owner: Annotated[int | None, typer.Option(help="Jobs of one key that may wait.")] = None,
    keep_days: Annotated[float | None, typer.Option(help="Life of ended jobs.", show_default="30")] = None,
    keep_jobs: Annotated[int | None, typer.Option(help="Most ended jobs kept.", show_default="10000")] = None,
    artifacts: Annotated[str | None, typer.Option(help="Folder or fsspec URL for copies of output files.")] = None,
    keep_artifacts_days: Annotated[float | None, typer.Option(help="Life of those copies.")] = None,
    stop_deadline_s: Annotated[float | None, typer.Option(help="How long a stop waits.", show_default="30")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.", show_default="json")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
    home: Home = None,
) -> None:
    """Start the server: the editor in a browser, and ComfyUI's HTTP and WebSocket API.

    Every option is also a setting in the TOML file and a variable SIGMAGRAPH_<NAME>; options win.
    """
    given = {name: value for name, value in locals().items() if name not in ("config", "print_config", "open_browser")}
    settings = _settings(config, given | {"open": open_browser})
    if print_config:
        from sigmagraph.engine.cli.console import out
        from sigmagraph.engine.server.settings import as_toml

        out().print(as_toml(settings), end="", markup=False, soft_wrap=True)
        return
    from sigmagraph.engine.compose.serving import run

    run(settings)


def _settings(config: Path | None, flags: dict[str, Any]) -> "Settings":
    """The settings in force, their paths filled in from the workspace."""
    import os

    from sigmagraph.engine.server.settings import load_settings

    settings = load_settings(config, os.environ, flags)
    space = workspace(settings.home, settings.output)
    home = space.home.resolve()
    return settings.model_copy(
        update={
            "home": home,
            "output": settings.output or home / "output",
            "database": settings.database or f"sqlite:///{home / 'user' / 'jobs.sqlite'}",
            "workflows": settings.workflows or SHIPPED / "workflows",
        }
    )
