"""`GET /view`: one file of the output, input or temporary folder; pictures re-encoded where asked."""

from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from aiohttp import web

from sigmagraph.engine.server.context import OwnerFolders, folders
from sigmagraph.engine.server.decoding.asking import made_of
from sigmagraph.engine.server.files import Outside, resolve
from sigmagraph.engine.server.static import content_type, send

__all__ = ["PLACES", "folder_of", "named", "view"]

SAFE = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp", "application/json"})
SAFE_KINDS = ("audio/", "video/")
CHANNELS = {"rgb": "without_alpha", "a": "alpha_of"}
PLACES = ("output", "input", "temp")
LONGEST_NUMBER = 9  # digits


async def view(request: web.Request) -> web.StreamResponse:
    """The file, never as something a browser would execute."""
    path = _path(request)
    if not path.is_file():
        raise web.HTTPNotFound
    query = request.query
    channel = query.get("channel", "rgba")
    if "preview" in query:
        kind, level = _wish(query["preview"], channel)
        body = await made_of(request, "preview", (path,), kind=kind, quality=level, keep_alpha=channel != "rgb")
        return _picture(body, kind, path.name)
    if channel in CHANNELS:
        return _picture(await made_of(request, CHANNELS[channel], (path,)), "png", path.name)
    return _file(_root(request), path, request.headers.get("Sec-Fetch-Dest") == "image")


def folder_of(places: OwnerFolders, kind: str) -> Path:
    """The folder a `type` names; 400 for any other word."""
    if kind not in PLACES:
        raise web.HTTPBadRequest
    return {"output": places.output_dir, "input": places.input_dir, "temp": places.temp_dir}[kind]


def named(filename: str, kind: str) -> tuple[str, str]:
    """`x.png [input]` -> the name and the folder it names itself."""
    for place in PLACES:
        if filename.endswith(f" [{place}]"):
            return filename[: -len(place) - 3], place
    return filename, kind


def _root(request: web.Request) -> Path:
    """The folder the file is asked of."""
    _, kind = named(request.query.get("filename", ""), request.query.get("type", "output"))
    return folder_of(folders(request), kind)


def _path(request: web.Request) -> Path:
    if "filename" not in request.query:
        raise web.HTTPNotFound
    filename, _ = named(request.query["filename"], "")
    if not filename or filename.startswith("/") or ".." in filename or "\0" in filename:
        raise web.HTTPBadRequest
    try:
        return resolve(_root(request), request.query.get("subfolder", ""), PurePosixPath(filename).name)
    except Outside:
        raise web.HTTPForbidden from None


def _wish(wish: str, channel: str) -> tuple[str, int]:
    """`webp;75`: the format before the last semicolon, the quality after it."""
    name, _, quality = wish.rpartition(";")
    is_level = quality.isdecimal() and len(quality) <= LONGEST_NUMBER
    kind = (name if is_level else wish).split(";")[0].strip().lower()
    kind = kind if kind in ("webp", "jpeg") and "a" not in channel.replace("rgba", "") else "webp"
    level = max(1, min(int(quality), 100)) if is_level else 90
    return kind, level


def _picture(body: BinaryIO, kind: str, name: str) -> web.Response:
    headers = {"Content-Disposition": _disposition(name), "X-Content-Type-Options": "nosniff"}
    return web.Response(body=body, content_type=f"image/{kind}", headers=headers)


def _file(root: Path, path: Path, is_image_request: bool) -> web.FileResponse:
    """Types a browser may run are sent as downloads; an SVG may stand in an `<img>`, where its scripts are dead."""
    kind = content_type(path.name)
    is_safe = kind in SAFE or kind.startswith(SAFE_KINDS) or (kind == "image/svg+xml" and is_image_request)
    headers = {
        "Content-Type": kind if is_safe or kind == "text/plain" else "application/octet-stream",
        "Content-Disposition": _disposition(path.name) if is_safe else f"attachment; {_disposition(path.name)}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    return send(root, path, headers)


def _disposition(name: str) -> str:
    """The file name for the browser; RFC 5987 where it is not plain."""
    if name.isascii() and not set(name) & set('"\\\r\n'):
        return f'filename="{name}"'
    return f"filename*=UTF-8''{quote(name, safe='')}"
