"""Files the page keeps for a person: saved workflows, templates, styles. One tree per owner."""

import asyncio
from pathlib import Path, PurePosixPath
from typing import Any

from aiohttp import web

from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.access.owner_locks import own_lock
from sigmagraph.engine.server.context import OWNER, USER_DIR, empty, reply
from sigmagraph.engine.server.files import Outside, below, resolve
from sigmagraph.engine.server.own_files import gone, room_of
from sigmagraph.engine.server.quota import Room, size_of
from sigmagraph.engine.server.static import send
from sigmagraph.engine.server.transport.request_bodies import read_body
from sigmagraph.engine.writing import make_folder, write_file

__all__ = ["delete", "listing", "listing_v2", "move", "read", "user_css", "user_root", "write"]


def user_root(request: web.Request) -> Path:
    """The folder of the request's owner; named as ComfyUI names that of its only user."""
    owner = request[OWNER]
    return request.app[USER_DIR] / ("default" if owner == LOCAL else owner)


async def listing(request: web.Request) -> web.Response:
    """`GET /userdata?dir=`: names, relative to the folder asked for."""
    query = request.query
    if not query.get("dir"):
        raise web.HTTPBadRequest(text="Directory not provided")
    root = _inside(user_root(request), query["dir"])
    if not root.is_dir():
        raise web.HTTPNotFound
    paths = await asyncio.to_thread(_files, root, _is_true(query.get("recurse")))
    names = [path.relative_to(root).as_posix() for path in paths]
    if _is_true(query.get("full_info")):
        return reply([_info(path, name) for path, name in zip(paths, names, strict=True)])
    if _is_true(query.get("split")):
        return reply([[name, *PurePosixPath(name).parts] for name in names])
    return reply(names)


async def listing_v2(request: web.Request) -> web.Response:
    """`GET /v2/userdata?path=`: files and folders, paths from the root of the owner's tree."""
    root = user_root(request)
    start = _inside(root, request.query.get("path", ""))
    if not start.is_dir():
        raise web.HTTPNotFound
    return reply(await asyncio.to_thread(_entries, root, start))


async def read(request: web.Request) -> web.StreamResponse:
    """`GET /userdata/{file}`: the bytes, as a download."""
    path = _inside(user_root(request), request.match_info["file"])
    if not path.is_file():
        raise web.HTTPNotFound
    return _file(user_root(request), path)


async def user_css(request: web.Request) -> web.StreamResponse:
    """`GET /user.css`: the person's own style sheet, if there is one."""
    path = user_root(request) / "user.css"
    if not path.is_file():
        raise web.HTTPNotFound
    return _file(user_root(request), path)


async def write(request: web.Request) -> web.Response:
    """`POST /userdata/{file}`: the body as a file, folders made on the way."""
    root = user_root(request)
    path = _inside(root, request.match_info["file"])
    if path == root or path.is_dir():
        raise web.HTTPBadRequest
    if not _is_true(request.query.get("overwrite", "true")) and path.exists():
        raise web.HTTPConflict(text="File already exists")
    data = await read_body(request)
    async with own_lock(request):
        await asyncio.to_thread(_kept, room_of(request), path, data)
    return _described(request, path)


def _kept(room: Room, path: Path, data: bytes) -> None:
    with room(path, len(data), size_of(path)):
        make_folder(path.parent)
        write_file(path, data)


async def move(request: web.Request) -> web.Response:
    """`POST /userdata/{file}/move/{dest}`: another name for a file."""
    root = user_root(request)
    source, target = _inside(root, request.match_info["file"]), _inside(root, request.match_info["dest"])
    if not source.is_file():
        raise web.HTTPNotFound
    if target == root or target.is_dir():
        raise web.HTTPBadRequest
    if target.exists() and not _is_true(request.query.get("overwrite", "true")):
        raise web.HTTPConflict(text="File already exists")
    replaced = size_of(target) if target != source else 0
    size = size_of(source)
    with room_of(request)(target, size, size):  # for new folders
        make_folder(target.parent)
        source.replace(target)
    if replaced:
        gone(request, replaced)
    return _described(request, target)


async def delete(request: web.Request) -> web.Response:
    """`DELETE /userdata/{file}`."""
    path = _inside(user_root(request), request.match_info["file"])
    if not path.is_file():
        raise web.HTTPNotFound
    size = size_of(path)
    path.unlink()
    gone(request, size)
    return empty(204)


def _files(root: Path, recurse: bool) -> list[Path]:
    """The files of a folder; a link that leads nowhere is none."""
    return [path for path in below(root, recurse=recurse) if path.is_file()]


def _entries(root: Path, start: Path) -> list[dict[str, Any]]:
    """Folders, then files, each by name."""
    entries: list[dict[str, Any]] = []
    for path in sorted(start.rglob("*")):
        entry: dict[str, Any] = {"name": path.name, "path": path.relative_to(root).as_posix()}
        if path.is_dir():
            entries.append(entry | {"type": "directory"})
        elif path.is_file() and not path.name.startswith(".draft-"):
            facts = path.stat()
            entries.append(entry | {"type": "file", "size": facts.st_size, "modified": facts.st_mtime})
    return sorted(entries, key=lambda item: (item["type"] == "file", item["name"].lower()))


def _described(request: web.Request, path: Path) -> web.Response:
    name = path.relative_to(user_root(request)).as_posix()
    return reply(_info(path, name) if _is_true(request.query.get("full_info")) else name)


def _info(path: Path, name: str) -> dict[str, Any]:
    facts = path.stat()
    modified, created = int(facts.st_mtime * 1000), int(facts.st_ctime * 1000)
    return {"path": name, "size": facts.st_size, "modified": modified, "created": created}


def _file(root: Path, path: Path) -> web.FileResponse:
    is_style = path.name == "user.css"
    headers = {"X-Content-Type-Options": "nosniff"}
    return send(root, path, headers | ({} if is_style else {"Content-Disposition": "attachment"}))


def _inside(root: Path, name: str) -> Path:
    try:
        return resolve(root, name)
    except Outside:
        raise web.HTTPForbidden from None


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() in ("true", "1")
