"""The templates dialog: the workflows folder of this project as templates, drawn where they have no drawing."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image, ImageDraw

from sigmagraph.engine.errors import BadDocument, EngineError
from sigmagraph.engine.graph.document import load_workflow
from sigmagraph.engine.server import pictures
from sigmagraph.engine.server.comfy.layout import as_editor
from sigmagraph.engine.server.context import JOBS, WORKFLOWS, reply
from sigmagraph.engine.server.files import Outside, resolve

__all__ = ["template_routes"]

THUMBNAIL = (384, 384)
PAPER, BOX, HEAD, LINE = (32, 33, 36), (62, 64, 70), (94, 129, 172), (150, 152, 158)


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
        return reply({"error": f"{path.name} is no workflow"}, 500)
    return reply(as_editor(workflow, await request.app[JOBS].nodes()))


async def _thumbnail(request: web.Request) -> web.Response:
    """The picture beside the workflow, else a sketch of its graph."""
    path = _path(request)
    beside = next((path.with_suffix(end) for end in (".webp", ".png", ".jpg") if path.with_suffix(end).is_file()), None)
    if beside is not None:
        image = await asyncio.to_thread(pictures.opened, beside, 1 << 24)
        return _webp(pictures.reencoded(image, "webp", 90, keep_alpha=False))
    nodes = await request.app[JOBS].nodes()
    try:
        return _webp(await asyncio.to_thread(lambda: sketch(as_editor(load_workflow(path), nodes))))
    except (EngineError, ValueError) as error:
        raise web.HTTPNotFound from error


def sketch(document: dict[str, Any]) -> bytes:
    """The boxes and lines of an editor document as a small picture."""
    boxes = {node["id"]: (*node["pos"], *node["size"]) for node in document["nodes"]}
    right = max((x + width for x, _, width, _ in boxes.values()), default=1) + 40
    bottom = max((y + height for _, y, _, height in boxes.values()), default=1) + 40
    scale = min(THUMBNAIL[0] / right, THUMBNAIL[1] / bottom)
    image = Image.new("RGB", THUMBNAIL, PAPER)
    left, top = (THUMBNAIL[0] - right * scale) / 2, (THUMBNAIL[1] - bottom * scale) / 2
    boxes = {i: (x + left / scale, y + top / scale, width, height) for i, (x, y, width, height) in boxes.items()}
    pen = ImageDraw.Draw(image)
    for link in document["links"]:
        start, end = boxes[link[1]], boxes[link[3]]
        points = (start[0] + start[2], start[1] + 20, end[0], end[1] + 20)
        pen.line([point * scale for point in points], fill=LINE, width=1)
    for x, y, width, height in boxes.values():
        pen.rectangle([x * scale, y * scale, (x + width) * scale, (y + height) * scale], fill=BOX)
        pen.rectangle([x * scale, y * scale, (x + width) * scale, (y + 24) * scale], fill=HEAD)
    return pictures.reencoded(image, "webp", 90, keep_alpha=False)


def _path(request: web.Request) -> Path:
    try:
        path = resolve(request.app[WORKFLOWS], request.match_info["name"] + ".json")
    except Outside:
        raise web.HTTPNotFound from None
    if not path.is_file():
        raise web.HTTPNotFound
    return path


def _webp(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="image/webp")
