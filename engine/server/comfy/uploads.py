"""`POST /upload/image` and `/upload/mask`: files from the page into the input, output or temporary folder."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from aiohttp import web
from aiohttp.web_request import FileField
from multidict import MultiMapping

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.reading.document import parse_json
from sigmagraph.engine.server.access.owner_locks import own_lock
from sigmagraph.engine.server.comfy.view import folder_of, named
from sigmagraph.engine.server.context import OwnerFolders, empty, folders, reply
from sigmagraph.engine.server.decoding.asking import made_of
from sigmagraph.engine.server.files import Outside, resolve
from sigmagraph.engine.server.own_files import noted, room_of
from sigmagraph.engine.server.quota import size_of
from sigmagraph.engine.server.transport.request_bodies import multipart_body
from sigmagraph.engine.writing import make_folder, write_file, write_new

__all__ = ["upload_image", "upload_mask"]

Form = MultiMapping[str | bytes | bytearray | FileField]


async def upload_image(request: web.Request) -> web.Response:
    """Keep the file as it is."""
    form = await _form(request)
    part = form.get("image")
    if not isinstance(part, FileField) or not PurePosixPath(part.filename).name:
        return empty(400)
    async with own_lock(request):
        return await asyncio.to_thread(lambda: _keep(request, form, part.filename, part.file.read()))


async def upload_mask(request: web.Request) -> web.Response:
    """Keep the original with its alpha replaced by the alpha of the picture sent."""
    form = await _form(request)
    part = form.get("image")
    if not isinstance(part, FileField) or not PurePosixPath(part.filename).name:
        return empty(400)
    original = _original(form, folders(request))
    with await made_of(request, "with_alpha", (original, await asyncio.to_thread(part.file.read))) as made:
        async with own_lock(request):
            return await asyncio.to_thread(lambda: _keep(request, form, part.filename, made.read()))


async def _form(request: web.Request) -> Form:
    if not request.content_type.startswith("multipart/"):
        raise web.HTTPBadRequest
    return await multipart_body(request)


def _keep(request: web.Request, form: Form, filename: str, data: bytes) -> web.Response:
    """Write the file under its name, or under a free one where another file has it."""
    kind, subfolder = _text(form, "type") or "input", _text(form, "subfolder")
    root = folder_of(folders(request), kind)
    try:
        path = resolve(root, subfolder, filename)
    except Outside:
        return empty(400)
    replaces = _text(form, "overwrite") in ("true", "1")
    if replaces or not _is_same(path, data):
        with room_of(request)(path, len(data), size_of(path) if replaces else 0):
            folder = make_folder(path.parent)
            path = write_file(path, data) if replaces else write_new(folder, _names(path), data)
            if kind != "input":
                noted(request, path)
    return reply({"name": path.name, "subfolder": _relative(path.parent, root), "type": kind})


def _names(path: Path) -> Iterator[str]:
    yield path.name
    for count in range(1, 10_000):
        yield f"{path.stem} ({count}){path.suffix}"


def _is_same(path: Path, data: bytes) -> bool:
    """Whether the file is there already with this very content."""
    if not path.is_file() or path.stat().st_size != len(data):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest() == hashlib.blake2b(data).digest()


def _relative(folder: Path, root: Path) -> str:
    text = PurePosixPath(folder.relative_to(root)).as_posix()
    return "" if text == "." else text


def _original(form: Form, places: OwnerFolders) -> Path:
    """The file `original_ref` names; 400 where it is missing, outside, or not described."""
    try:
        reference = parse_json(_text(form, "original_ref"))
        filename, kind = named(str(reference["filename"]), str(reference.get("type", "output")))
        path = resolve(folder_of(places, kind), str(reference.get("subfolder", "")), filename)
    except (BadDocument, TypeError, KeyError, AttributeError, Outside):
        raise web.HTTPBadRequest from None
    if not path.is_file():
        raise web.HTTPBadRequest
    return path


def _text(form: Form, name: str) -> str:
    value: Any = form.get(name, "")
    return value if isinstance(value, str) else ""
