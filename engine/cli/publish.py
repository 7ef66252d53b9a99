"""`sigmagraph publish`: a saved workflow becomes an endpoint: its graph, and a first manifest to edit."""

from pathlib import Path
from typing import Annotated

import typer

from sigmagraph.engine.cli.endpoints import VARIABLE
from sigmagraph.engine.cli.options import AsJson, CustomNodes, Home, Plugins, workspace
from sigmagraph.engine.shipped import ENDPOINTS

__all__ = ["publish"]


def publish(
    workflow: Annotated[Path, typer.Argument(help="A workflow (API or editor form), or a picture that carries one.")],
    slug: Annotated[str | None, typer.Option(help="Its name in paths.", show_default="the file's name")] = None,
    to: Annotated[
        Path | None,
        typer.Option(envvar=VARIABLE, help="The folder of endpoints.", show_default="workflows/endpoints"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an endpoint of that name.")] = False,
    as_json: AsJson = False,
    custom_nodes: CustomNodes = None,
    home: Home = None,
    plugins: Plugins = None,
) -> None:
    """Write a first manifest from a graph: every number, choice and text that the graph sets becomes a parameter.

    Where the drawing says what it offers in the editor's app mode, only that does.
    """
    from sigmagraph.engine.cli.console import out, remark, write_json
    from sigmagraph.engine.compose.manifests import first_manifest, slug_of
    from sigmagraph.engine.errors import WriteFailed
    from sigmagraph.engine.graph.editor import app_mode
    from sigmagraph.engine.server.endpoints.endpoint import load_endpoint
    from sigmagraph.engine.writing import make_folder

    space = workspace(home, None, custom_nodes)
    document = space.read(workflow)
    name, folder = slug or slug_of(workflow.stem), make_folder(to or ENDPOINTS)
    manifest, graph = folder / f"{name}.toml", folder / f"{name}.json"
    taken = next((path for path in (manifest, graph) if path.exists()), None)
    if taken is not None and not force:
        raise WriteFailed(taken, "is there already; --force replaces it, --slug takes another name")
    app = app_mode(document.editor, space.declarations, document.prompt())
    text, prompt = first_manifest(document, space.nodes, name, workflow.stem, app)
    graph.write_text(prompt, "utf-8")
    manifest.write_text(text, "utf-8")
    endpoint = load_endpoint(manifest)
    if as_json:
        write_json(endpoint.manifest.model_dump(mode="json") | {"files": [str(manifest), str(graph)]})
    else:
        out().print(str(manifest), markup=False, soft_wrap=True)
    remark(f"{len(endpoint.manifest.parameters)} parameters; served as /v1/{name}, /v2/{name} and /workflows/{name}")
