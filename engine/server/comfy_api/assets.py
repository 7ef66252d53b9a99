"""`/api/v2/assets`: contents by their digest, owner by owner; outputs of jobs are assets as well."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import BadValue, MissingFile, UnknownJob
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.model_folders import MODEL_FOLDERS
from sigmagraph.engine.server.access.auth import require
from sigmagraph.engine.server.access.origin import own_origin
from sigmagraph.engine.server.access.owner_locks import own_lock
from sigmagraph.engine.server.comfy.finding import SEARCHING
from sigmagraph.engine.server.comfy.userdata import user_root
from sigmagraph.engine.server.comfy.view import folder_of
from sigmagraph.engine.server.comfy_api.job_json import (
    KEPT_S,
    ROOT,
    Shown,
    instant,
    output_record,
    place_of,
    shown_by,
    shown_so_far,
)
from sigmagraph.engine.server.comfy_api.outputs import OUTPUTS
from sigmagraph.engine.server.comfy_api.progress import snapshot_of
from sigmagraph.engine.server.comfy_api.refusals import Declined
from sigmagraph.engine.server.comfy_api.store import Asset, AssetStore, digest_of, hex_of
from sigmagraph.engine.server.context import JOBS, OWNER, SETTINGS, folders, reply
from sigmagraph.engine.server.files import Outside, resolve
from sigmagraph.engine.server.own_files import room_of
from sigmagraph.engine.server.static import content_type, send
from sigmagraph.engine.server.transport.request_bodies import json_body, multipart_body
from sigmagraph.engine.server.turns import turn_of

__all__ = ["by_hash", "content", "delete", "fetch", "from_hash", "from_path", "named", "store_of", "upload"]

MEBIBYTE = 1024 * 1024
MOST_WAITING = 16
NOT_PLACED = "weight files are placed by whoever runs this server, in its models folder"
DISPOSITION = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}


def store_of(request: web.Request) -> AssetStore:
    """The assets of the request's owner."""
    most = request.app[SETTINGS].max_assets_mb * MEBIBYTE
    return AssetStore(user_root(request) / "assets", folders(request).input_dir, most, room_of(request))


def named(request: web.Request) -> Callable[[str | None, str | None], Awaitable[str | None]]:
    """What finds the loader's name for a `core/ASSET` reference: by id, else by hash."""
    store = store_of(request)

    async def find(asset_id: str | None, digest: str | None) -> str | None:
        if asset_id is not None and place_of(asset_id) is not None:
            return _annotated(request, await _output(request, asset_id))
        if asset_id is not None:
            found = await asyncio.to_thread(_get, store, asset_id)
            return found.name if found is not None else None
        found = await asyncio.to_thread(store.by_hash, digest or "")
        return found.name if found is not None else _annotated(request, await _output_of_hash(request, digest or ""))

    return find


def _get(store: AssetStore, asset_id: str) -> Asset | None:
    try:
        return store.get(asset_id)
    except MissingFile:
        return None


def _annotated(request: web.Request, output: tuple[Job, Shown] | None) -> str | None:
    """`picture.png [output]`, as loader nodes name files of other folders; words have no such name."""
    if output is None or output[1].path is None:
        return None
    shown, path = output[1], output[1].path
    return f"{path.relative_to(folder_of(folders(request), shown.place)).as_posix()} [{shown.place}]"


async def upload(request: web.Request) -> web.StreamResponse:
    """`POST /assets`, a form: `file`, `file_path`, `content_type`, `expected_hash`. 201, or 200 for a known content."""
    if not request.content_type.startswith("multipart/"):
        raise Declined(422, "invalid_request", "expected multipart/form-data with a part 'file'")
    form = await multipart_body(request)
    part, file_path = form.get("file"), form.get("file_path", "")
    if not isinstance(part, web.FileField):
        raise Declined(422, "invalid_request", "the part 'file' is missing")
    if not isinstance(file_path, str):
        raise Declined(422, "invalid_request", "file_path is not a string")
    name = _checked_path(file_path or part.filename)
    given = form.get("content_type")
    kind = given if isinstance(given, str) and given else part.content_type or content_type(name)
    expected = form.get("expected_hash")
    try:
        async with own_lock(request):
            asset, is_new = await asyncio.to_thread(
                store_of(request).add, part.file, name, kind[:100], expected if isinstance(expected, str) else None
            )
    except BadValue as error:
        if isinstance(expected, str) and "expected_hash" in str(error):
            raise Declined(409, "hash_mismatch", str(error)) from error
        raise Declined(413, "payload_too_large", str(error)) from error
    return reply(_record(request, asset) | {"created_new": is_new}, 201 if is_new else 200)


def _checked_path(text: str) -> str:
    """A relative name, and none of a weight file: those are not for callers to place."""
    try:
        path = PurePosixPath(resolve(Path("/input"), text).as_posix()).relative_to("/input")
    except (Outside, ValueError) as error:
        raise Declined(422, "invalid_request", f"file_path {text[:80]!r} is not a relative name") from error
    first = path.parts[0] if path.parts else ""
    if not first:
        raise Declined(422, "invalid_request", "file_path is missing")
    if first == "models" or (first in MODEL_FOLDERS and len(path.parts) > 1):
        raise Declined(422, "invalid_request", f"file_path {text[:80]!r}: {NOT_PLACED}")
    return path.as_posix()


async def from_hash(request: web.Request) -> web.StreamResponse:
    """`POST /assets/from-hash`: the caller's asset of a content that is here already, uploaded or an output of a job.

    404 where it is not theirs.
    """
    digest = await _text(request, "hash")
    asset = await asyncio.to_thread(store_of(request).by_hash, digest)
    if asset is not None:
        return reply(_record(request, asset) | {"created_new": False})
    output = await _output_of_hash(request, digest)
    if output is None:
        raise Declined(404, "blob_not_found", "there is no content of that hash that this caller may use")
    return reply(await _record_of_output(request, *output) | {"created_new": False})


async def from_path(request: web.Request) -> web.StreamResponse:
    """`POST /assets/from-path`: a file that lies in the input folder, taken as it is; for administrators."""
    require(request, "admin")
    root, text = folders(request).input_dir.resolve(), await _text(request, "path")
    path = Path(text)
    if not path.is_absolute() or not path.resolve().is_relative_to(root):
        raise Declined(422, "invalid_request", "path is not an absolute path below the input folder")
    if not path.is_file():
        raise Declined(404, "blob_not_found", "there is no such file")
    name = path.resolve().relative_to(root).as_posix()
    async with own_lock(request):
        asset, is_new = await asyncio.to_thread(store_of(request).register, name, path, name, content_type(name))
    return reply(_record(request, asset) | {"created_new": is_new}, 201 if is_new else 200)


async def by_hash(request: web.Request) -> web.StreamResponse:
    """`HEAD /assets/by-hash/{hash}`: whether the caller has that content, uploaded or as an output of a job."""
    digest = request.match_info["hash"]
    found = await asyncio.to_thread(store_of(request).by_hash, digest) or await _output_of_hash(request, digest)
    return web.Response(status=200 if found is not None else 404)


async def fetch(request: web.Request) -> web.StreamResponse:
    """`GET /assets/{id}`."""
    asset_id = request.match_info["id"]
    if place_of(asset_id) is None:
        return reply(_record(request, await asyncio.to_thread(store_of(request).get, asset_id)))
    return reply(await _record_of_output(request, *await _known_output(request, asset_id)))


async def content(request: web.Request) -> web.StreamResponse:
    """`GET /assets/{id}/content`: the bytes, with ranges."""
    asset_id = request.match_info["id"]
    if place_of(asset_id) is None:
        store = store_of(request)
        asset = await asyncio.to_thread(store.get, asset_id)
        return _sent(store.inputs, store.path(asset))
    _, shown = await _known_output(request, asset_id)
    if shown.path is None:
        return web.Response(body=shown.words, content_type="text/plain", charset="utf-8", headers=DISPOSITION)
    return _sent(folder_of(folders(request), shown.place), shown.path)


def _sent(root: Path, path: Path) -> web.StreamResponse:
    if not path.is_file():
        raise Declined(404, "output_unavailable", "the record is here, its bytes are not any more")
    return send(root, path, DISPOSITION)


async def delete(request: web.Request) -> web.StreamResponse:
    """`DELETE /assets/{id}`: the record, and with it the content. Outputs go with their jobs."""
    asset_id = request.match_info["id"]
    if place_of(asset_id) is not None:
        raise Declined(422, "invalid_request", "an output belongs to its job, and goes with it")
    store = store_of(request)
    async with own_lock(request):
        await asyncio.to_thread(store.delete, await asyncio.to_thread(store.get, asset_id))
    return web.Response(status=204)


async def _known_output(request: web.Request, asset_id: str) -> tuple[Job, Shown]:
    """The output an id names; 404 where there is none."""
    output = await _output(request, asset_id)
    if output is None:
        raise Declined(404, "not_found", f"there is no asset {asset_id[:80]!r}")
    return output


async def _output(request: web.Request, asset_id: str) -> tuple[Job, Shown] | None:
    """The job and the output an id names, if the caller's job showed it."""
    found = place_of(asset_id)
    if found is None:
        return None
    jobs, (job_id, place) = request.app[JOBS], found
    try:
        job = await jobs.get(job_id, request[OWNER])
    except UnknownJob:
        return None
    outputs = shown_so_far(job, await snapshot_of(jobs, job) if job.state is State.RUNNING else None)
    every = shown_by(outputs, folders(request))
    return next(((job, each) for each in every if (each.node_id, each.kind, each.index) == place), None)


async def _output_of_hash(request: web.Request, digest: str) -> tuple[Job, Shown] | None:
    """The output of that content, and its job, if a job of the caller's that is kept showed it."""
    if hex_of(digest.lower()) is None:
        return None
    async with turn_of(request.app[SEARCHING], request[OWNER], "searches by hash", MOST_WAITING):
        found = await request.app[OUTPUTS].by_hash(request[OWNER], digest)
    if found is None:
        return None
    try:
        job = await request.app[JOBS].get(found.made.job_id, request[OWNER])
    except UnknownJob:
        return None
    every = shown_by(job.outcome.outputs if job.outcome is not None else {}, folders(request))
    return next(((job, each) for each in every if each.path == found.path), None)


async def _record_of_output(request: web.Request, job: Job, shown: Shown) -> dict[str, Any]:
    """An output as an asset; its digest is computed now, when somebody asks."""
    record = output_record(job, shown, own_origin(request))
    digest = None if shown.path is None else await asyncio.to_thread(_digest, shown.path)
    kept = ("id", "size_bytes", "content_type", "url", "url_expires_at", "job_id")
    made = {"hash": digest, "file_path": shown.name, "created_at": instant(job.ended_at or job.created_at)}
    return {name: record[name] for name in kept} | made


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return digest_of(file)[0]
    except OSError:
        return None


def _record(request: web.Request, asset: Asset) -> dict[str, Any]:
    return {
        "id": asset.id,
        "hash": asset.hash,
        "size_bytes": asset.size_bytes,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": instant(asset.created_at),
        "url": f"{own_origin(request)}{ROOT}/assets/{asset.id}/content",
        "url_expires_at": instant(time.time() + KEPT_S),
        "expires_at": None,
    }


async def _text(request: web.Request, name: str) -> str:
    """A field of the body that must be there."""
    body = await json_body(request)
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise Declined(422, "invalid_request", f"the field {name!r} is missing, or is not a string")
    return value
