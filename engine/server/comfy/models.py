"""Lists of weight files for the page and for clients, and what a file's own header says about it."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import UnreadableImage
from sigmagraph.engine.model_folders import CODE_FOLDERS, MODEL_FOLDERS
from sigmagraph.engine.server.context import OwnerFolders, folders, reply
from sigmagraph.engine.server.decoding.asking import made_of
from sigmagraph.engine.server.files import Outside, resolve

__all__ = [
    "embeddings",
    "experiment_folder",
    "experiment_models",
    "model_folder",
    "model_folders",
    "preview",
    "view_metadata",
]

OLDER_NAMES = ("clip", "unet")
MAX_HEADER = 1024 * 1024
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
COVER = "modelspec.thumbnail"


async def model_folders(request: web.Request) -> web.Response:
    """`GET /models`: the names of the folders."""
    return reply(MODEL_FOLDERS)


async def model_folder(request: web.Request) -> web.Response:
    """`GET /models/{folder}`: names of files, as loaders take them."""
    return reply(folders(request).files(_folder(request)))


async def embeddings(request: web.Request) -> web.Response:
    """`GET /embeddings`: names as prompts write them."""
    return reply([name.rpartition(".")[0] for name in folders(request).files("embeddings")])


async def experiment_models(request: web.Request) -> web.Response:
    """`GET /experiment/models`: the folders; where they lie on this machine is nobody's business."""
    return reply([{"name": name, "folders": [name]} for name in MODEL_FOLDERS if name not in CODE_FOLDERS])


async def experiment_folder(request: web.Request) -> web.Response:
    """`GET /experiment/models/{folder}`: files with size and time."""
    folder, places = _folder(request), folders(request)
    return reply(await asyncio.to_thread(lambda: [_entry(places, folder, name) for name in places.files(folder)]))


async def preview(request: web.Request) -> web.Response:
    """`GET /experiment/models/preview/{folder}/{index}/{file}`: the picture beside a model, or the one inside it."""
    path = _file(request, request.match_info["file"])
    cover = await asyncio.to_thread(_cover, path)
    if cover is None:
        raise web.HTTPNotFound
    try:
        made = await made_of(request, "preview", (cover,), kind="webp", quality=90, keep_alpha=True)
    except UnreadableImage as error:  # a damaged picture is not a picture
        raise web.HTTPNotFound from error
    return web.Response(body=made, content_type="image/webp")


async def view_metadata(request: web.Request) -> web.Response:
    """`GET /view_metadata/{folder}?filename=`: the `__metadata__` of a safetensors header."""
    path = _file(request, request.query.get("filename", ""))
    metadata = await asyncio.to_thread(_metadata, path)
    if metadata is None:
        raise web.HTTPNotFound
    return reply(metadata)


def _folder(request: web.Request) -> str:
    folder = request.match_info["folder"]
    if folder not in (*MODEL_FOLDERS, *OLDER_NAMES):
        raise web.HTTPNotFound
    return folder


def _file(request: web.Request, name: str) -> Path:
    """The model file of that name; 404 where there is none."""
    folder = _folder(request)
    path = _locate(folders(request), folder, name) if name else None
    if path is None:
        raise web.HTTPNotFound
    return path


def _locate(places: OwnerFolders, folder: str, name: str) -> Path | None:
    for directory in places.directories(folder):
        try:
            path = resolve(directory, name)
        except Outside:
            path = directory / name if name in places.files(folder) else directory
        if path.is_file():
            return path
    return places.path(folder, name) if name in places.files(folder) else None  # a name given by an alias


def _entry(places: OwnerFolders, folder: str, name: str) -> dict[str, Any]:
    path = _locate(places, folder, name)
    facts = path.stat() if path is not None else None
    numbers = {"modified": 0.0, "created": 0.0, "size": 0}
    if facts is not None:
        numbers = {"modified": facts.st_mtime, "created": facts.st_ctime, "size": facts.st_size}
    return {"name": name, "pathIndex": 0, **numbers}


def _cover(path: Path) -> Path | bytes | None:
    """A picture of the model."""
    beside = (path.with_name(path.stem + ending) for end in PICTURES for ending in (end, f".preview{end}"))
    return next((picture for picture in beside if picture.is_file()), None) or _inner_cover(path)


def _inner_cover(path: Path) -> bytes | None:
    """The `data:image/...;base64,` text some tools put into the header."""
    text = (_metadata(path) or {}).get(COVER, "")
    if not text.startswith("data:image/"):
        return None
    try:
        return base64.b64decode(text.partition(",")[2], validate=True)
    except ValueError:  # binascii.Error, and what is not ASCII
        return None


def _metadata(path: Path) -> dict[str, str] | None:
    """The header's metadata; None where the file is not a safetensors file or its header is larger than 1 MB."""
    if path.suffix not in (".safetensors", ".sft"):
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= MAX_HEADER:
            return None
        header = file.read(length)
    try:
        metadata = json.loads(header).get("__metadata__")
    except (ValueError, AttributeError, RecursionError):  # not JSON, a number of 5,000 digits, nested beyond measure
        return None
    if not isinstance(metadata, dict):
        return None
    return {name: value for name, value in metadata.items() if isinstance(value, str)}  # the format has no others
