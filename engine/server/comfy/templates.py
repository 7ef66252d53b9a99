"""The templates dialog: the workflows folder of this project as templates, drawn where they have no drawing."""

from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web

from sigmagraph.engine.errors import BadDocument, EngineError
from sigmagraph.engine.graph.document import load_workflow
from sigmagraph.engine.graph.editor import drawn
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.server.comfy.object_info import declarations_of
from sigmagraph.engine.server.context import WORKFLOWS, reply
from sigmagraph.engine.server.decoding.asking import made_of
from sigmagraph.engine.server.files import Outside, resolve

__all__ = ["template_routes"]


def template_routes() -> list[web.RouteDef]:
    """The routes; `/templates` is not mirrored under `/api`."""
    return [
        web.get("/templates/index.json", _index),
        web.get("/templates/{name}-{number:[12]}.webp", _thumbnail),
        web.get("/templates/{name}.json", _template),
    ]


async def _index(request: web.Request) -> web.Response:
    paths = sorted(request.app[WORKFLOWS].glob("*.json"))
    templates = [_entry(path) for path in paths]
    group = {"moduleName": "default", "title": "sigmagraph", "type": "image", "isEssential": True}
    return reply([{**group, "category": "Image", "templates": templates}] if templates else [])


def _entry(path: Path) -> dict[str, Any]:
    title = path.stem.replace("_", " ")
    for short, long in (("sd3", "SD3"), ("txt2img", "text to image"), ("img2img", "image to image")):
        title = title.replace(short, long)
    return {
        "name": path.stem,
        "title": title[:1].upper() + title[1:],
        "mediaType": "image",
        "mediaSubtype": "webp",
        "description": f"The workflow {path.name} of this server.",
        "tags": [],
        "models": [],
    }


async def _template(request: web.Request) -> web.Response:
    path = _path(request)
    try:
        workflow = load_workflow(path)
    except BadDocument:
        return reply({"error": f"{path.name} is not a workflow"}, 500)
    return reply(await _drawing(request, workflow))


async def _thumbnail(request: web.Request) -> web.Response:
    """The picture beside the workflow, else a sketch of its graph."""
    path = _path(request)
    beside = next((path.with_suffix(end) for end in (".webp", ".png", ".jpg") if path.with_suffix(end).is_file()), None)
    if beside is not None:
        return _webp(await made_of(request, "preview", (beside,), kind="webp", quality=90, keep_alpha=False))
    try:
        outline = _outline(await _drawing(request, load_workflow(path)))
        return _webp(await made_of(request, "sketch", **outline))
    except (EngineError, ValueError) as error:
        raise web.HTTPNotFound from error


async def _drawing(request: web.Request, workflow: Workflow) -> dict[str, Any]:
    """The editor document of a workflow; one that came from the editor is handed back as it was."""
    if workflow.editor is not None:
        return dict(workflow.editor)
    names = (node.class_type for node in workflow.nodes.values())
    return drawn(workflow.prompt(), await declarations_of(request, names))


def _outline(document: dict[str, Any]) -> dict[str, Any]:
    """The boxes and lines of an editor document."""
    places = {node["id"]: place for place, node in enumerate(document["nodes"])}
    return {
        "boxes": [(*node["pos"], *node["size"]) for node in document["nodes"]],
        "lines": [(places[link[1]], places[link[3]]) for link in document["links"]],
    }


def _path(request: web.Request) -> Path:
    try:
        path = resolve(request.app[WORKFLOWS], request.match_info["name"] + ".json")
    except Outside:
        raise web.HTTPNotFound from None
    if not path.is_file():
        raise web.HTTPNotFound
    return path


def _webp(data: BinaryIO) -> web.Response:
    return web.Response(body=data, content_type="image/webp")
