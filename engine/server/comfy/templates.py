"""The templates dialog: the workflows folder of this project as templates, drawn where they have no drawing."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web

from sigmagraph.engine.errors import BadDocument, EngineError
from sigmagraph.engine.graph.editor import drawn
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.model_hub import source_of
from sigmagraph.engine.server.comfy.notes import Notes, notes_of
from sigmagraph.engine.server.comfy.object_info import declarations_of
from sigmagraph.engine.server.context import WORKFLOWS, reply
from sigmagraph.engine.server.decoding.asking import made_of
from sigmagraph.engine.server.files import Outside, resolve

__all__ = ["template_routes"]

DEFAULT = "default"  # what programs ask for that want any graph to begin with


def template_routes() -> list[web.RouteDef]:
    """The routes; `/templates` is not mirrored under `/api`."""
    return [
        web.get("/templates/index.json", _index),
        web.get("/templates/{name}-{number:[12]}.webp", _thumbnail),
        web.get("/templates/{name}.json", _template),
    ]


async def _index(request: web.Request) -> web.Response:
    """The templates; those whose weights are here come first, and of these the smallest graph."""
    read = await asyncio.to_thread(lambda: [(path, notes_of(path), _loaded(path)) for path in _all(request)])
    loaded = (workflow for _, _, workflow in read if workflow is not None)
    known = await declarations_of(request, (node.class_type for each in loaded for node in each.nodes.values()))
    ranked = sorted(read, key=lambda template: _rank(template[0], template[2], known))
    group = {"moduleName": "default", "title": "sigmagraph", "type": "image", "isEssential": True}
    templates = [_entry(path, notes) for path, notes, _ in ranked]
    return reply([{**group, "category": "Image", "templates": templates}] if templates else [])


def _loaded(path: Path) -> Workflow | None:
    """The workflow; None where it cannot be read: it is shown, and opening it says what is wrong with it."""
    try:
        return load_workflow(path)
    except EngineError:
        return None


def _entry(path: Path, notes: Notes) -> dict[str, Any]:
    """What the dialog shows of a template."""
    return {
        "name": path.stem,
        "title": notes.title,
        "mediaType": "image",
        "mediaSubtype": "webp",
        "description": notes.description,
        "tags": notes.tags,
        "models": notes.models,
    }


def _rank(path: Path, workflow: Workflow | None, known: Mapping[str, Any]) -> tuple[int, int, str]:
    """Where a template stands among the others."""
    if workflow is None:
        return 2, 0, path.stem
    return int(_lacks_files(workflow, known)), len(workflow.nodes), path.stem


def _lacks_files(workflow: Workflow, known: Mapping[str, Any]) -> bool:
    """Whether a workflow names files that are not in the lists its nodes offer."""
    return any(
        isinstance(spec[0], list) and isinstance(value := node.inputs.get(name), str) and value not in spec[0]
        for node in workflow.nodes.values()
        for name, spec in known[node.class_type]["input"].get("required", {}).items()
    )


async def _template(request: web.Request) -> web.Response:
    """A template as a document of the editor."""
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
    return with_sources(drawn(workflow.prompt(), await declarations_of(request, names)))


def with_sources(document: dict[str, Any]) -> dict[str, Any]:
    """The document with `properties.models` where a node names an official file: the page offers what is missing."""
    for node in document["nodes"]:
        found = [source for value in node["widgets_values"] if isinstance(value, str) and (source := source_of(value))]
        if found:
            node["properties"]["models"] = [
                {"name": source.name, "url": source.url, "directory": source.folder} for source in found
            ]
    return document


def _outline(document: dict[str, Any]) -> dict[str, Any]:
    """The boxes and lines of an editor document."""
    places = {node["id"]: place for place, node in enumerate(document["nodes"])}
    return {
        "boxes": [(*node["pos"], *node["size"]) for node in document["nodes"]],
        "lines": [(places[link[1]], places[link[3]]) for link in document["links"]],
    }


def _all(request: web.Request) -> list[Path]:
    return sorted(request.app[WORKFLOWS].glob("*.json"))


def _path(request: web.Request) -> Path:
    """The file of the template; where there is none called `default`, that name stands for `txt2img` or the first."""
    name, known = request.match_info["name"], {path.stem: path for path in _all(request)}
    if name == DEFAULT and name not in known and known:
        return known.get("txt2img") or next(iter(known.values()))
    try:
        path = resolve(request.app[WORKFLOWS], name + ".json")
    except Outside:
        raise web.HTTPNotFound from None
    if not path.is_file():
        raise web.HTTPNotFound
    return path


def _webp(data: BinaryIO) -> web.Response:
    return web.Response(body=data, content_type="image/webp")
