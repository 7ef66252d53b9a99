"""`/api/assets` and `/api/tags`: the asset panels of the editor over the same store as `/api/v2/assets`.

Told by the flag `assets`, which the setting `editor_assets` turns on. Uploads are there, under names, tags and notes of
their owner, and outputs of jobs as they are; weight files are not.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine.errors import BadValue, MissingFile, WriteFailed
from sigmagraph.engine.server.access.owner_locks import own_lock
from sigmagraph.engine.server.comfy_api.assets import store_of
from sigmagraph.engine.server.comfy_api.editor_fields import (
    Change,
    Listing,
    NewRecord,
    Tags,
    TagsListing,
    body_of,
    query_of,
    read,
)
from sigmagraph.engine.server.comfy_api.outputs import OUTPUTS, OutputAsset, OwnedOutput
from sigmagraph.engine.server.comfy_api.refusals import Declined
from sigmagraph.engine.server.comfy_api.store import Asset, AssetStore
from sigmagraph.engine.server.context import OWNER, folders, reply
from sigmagraph.engine.server.quota import DiskFull, QuotaReached
from sigmagraph.engine.server.static import content_type, send
from sigmagraph.engine.server.transport.request_bodies import multipart_body

__all__ = ["editor_routes"]

SYSTEM = frozenset({"input", "output", "models"})
NO_CONTENT = "there is no content of that hash that this caller may use"
PATTERN = "{id:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}}"


def editor_routes() -> list[web.RouteDef]:
    """The routes. `/assets/...` without `/api` are files of the editor itself."""
    rows = (
        ("GET", "/assets", listing),
        ("POST", "/assets", upload),
        ("POST", "/assets/from-hash", from_hash),
        ("POST", "/assets/seed", seed),
        ("GET", "/assets/seed/status", seed_status),
        ("GET", "/assets/tags/refine", refine),
        ("GET", "/assets/hash/{hash}", by_hash),
        ("GET", f"/assets/{PATTERN}", fetch),
        ("PUT", f"/assets/{PATTERN}", change),
        ("DELETE", f"/assets/{PATTERN}", delete),
        ("GET", f"/assets/{PATTERN}/content", content),
        ("POST", f"/assets/{PATTERN}/tags", add_tags),
        ("DELETE", f"/assets/{PATTERN}/tags", remove_tags),
        ("GET", "/tags", tags),
    )
    return [web.route(method, "/api" + path, _answered(handler)) for method, path, handler in rows] + [
        web.head("/api/assets/hash/{hash}", _answered(by_hash))
    ]


def _answered(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
    """The handler, with refusals as `{"error": {"code", "message", "details"}}`."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Declined as refused:
            error = {"code": refused.code, "message": str(refused), "details": refused.details}
            return reply({"error": error}, refused.status)
        except QuotaReached as reached:
            return reply({"error": {"code": "PAYLOAD_TOO_LARGE", "message": str(reached), "details": {}}}, 413)
        except (DiskFull, WriteFailed) as full:
            return reply({"error": {"code": "INSUFFICIENT_STORAGE", "message": str(full), "details": {}}}, 507)
        except MissingFile as missing:
            asset_id = request.match_info.get("id", "")
            error = {"code": "ASSET_NOT_FOUND", "message": str(missing), "details": {"id": asset_id}}
            return reply({"error": error}, 404)

    return answer


# -- lists -------------------------------------------------------------------------------------------------------


async def listing(request: web.Request) -> web.StreamResponse:
    """`GET /api/assets`: by tags, name and notes, page by page."""
    asked = query_of(request, Listing)
    found = await _matching(request, asked)
    first = max(asked.offset, asked.after)
    page, rest = found[first : first + asked.limit], len(found) > first + asked.limit
    records = [_record(asset) for asset in await asyncio.to_thread(_read, page)]
    cursor = {"next_cursor": str(first + asked.limit)} if rest else {}
    return reply({"assets": records, "total": len(found), "has_more": rest, **cursor})


async def refine(request: web.Request) -> web.StreamResponse:
    """`GET /api/assets/tags/refine`: which tags the assets have that a list would show, and how many each."""
    found = await _matching(request, query_of(request, Listing))
    return reply({"tag_counts": dict(Counter(tag for asset in found for tag in asset.tags).most_common())})


async def tags(request: web.Request) -> web.StreamResponse:
    """`GET /api/tags`."""
    asked = query_of(request, TagsListing)
    every = await _every(request)
    counts = Counter(tag for asset in every for tag in asset.tags if tag.startswith(asked.prefix.lower()))
    is_by_name = asked.order == "name_asc"
    found = sorted(counts.items(), key=lambda pair: (0 if is_by_name else -pair[1], pair[0]))
    page = found[asked.offset : asked.offset + asked.limit]
    shown = [{"name": name, "count": count, "type": "system" if name in SYSTEM else "user"} for name, count in page]
    return reply({"tags": shown, "total": len(found), "has_more": len(found) > asked.offset + asked.limit})


async def _every(request: web.Request) -> list[Asset]:
    """Uploads, and the files that jobs left in the output folder."""
    outputs, store = await request.app[OUTPUTS].all(request[OWNER]), store_of(request)

    def every() -> list[Asset]:
        made = (output.asset() for output in outputs if output.made.kind == "output")
        return [*store.all(), *(asset for asset in made if asset is not None)]

    return await asyncio.to_thread(every)


def _read(page: list[Asset]) -> list[Asset]:
    """With the digests of outputs: of those that are shown."""
    return [
        replace(asset, hash=asset.output.read() or "") if isinstance(asset, OutputAsset) else asset for asset in page
    ]


async def _matching(request: web.Request, asked: Listing) -> list[Asset]:
    """In the order asked for; those of one moment by their ids, so that pages fit together."""
    wanted, unwanted, part = set(asked.include_tags), set(asked.exclude_tags), asked.name_contains.lower()
    found = [
        asset
        for asset in await _every(request)
        if wanted <= set(asset.tags)
        and unwanted.isdisjoint(asset.tags)
        and part in asset.file_path.lower()
        and all(asset.user_metadata.get(name) == value for name, value in asked.metadata_filter.items())
    ]
    return sorted(found, key=partial(_place, asked.sort), reverse=asked.order == "desc")


def _place(by: str, asset: Asset) -> tuple[Any, str]:
    """Where an asset stands in a list; nothing is noted of reading, so that its last is its making."""
    match by:
        case "name":
            return asset.file_path.lower(), asset.id
        case "size":
            return asset.size_bytes, asset.id
        case "updated_at":
            return asset.updated_at or asset.created_at, asset.id
    return asset.created_at, asset.id


# -- one asset ---------------------------------------------------------------------------------------------------


async def fetch(request: web.Request) -> web.StreamResponse:
    """`GET /api/assets/{id}`."""
    return reply(_record(await _asset(request)))


async def content(request: web.Request) -> web.StreamResponse:
    """`GET /api/assets/{id}/content`: the bytes, with ranges; shown in place of saved with `disposition=inline`."""
    store, asset = store_of(request), await _asset(request)
    path, root = store.path(asset), store.inputs
    if isinstance(asset, OutputAsset):
        path, root = asset.output.path, folders(request).output_dir
    if not path.is_file():
        raise Declined(404, "ASSET_NOT_FOUND", "the record is here, its bytes are not any more", id=asset.id)
    is_picture = content_type(path.name).startswith("image/") and "svg" not in path.name  # an SVG may carry scripts
    shows = is_picture and request.query.get("disposition") == "inline"
    how = f"{'inline' if shows else 'attachment'}; filename*=UTF-8''{quote(asset.file_path)}"
    return send(root, path, {"X-Content-Type-Options": "nosniff", "Content-Disposition": how})


async def by_hash(request: web.Request) -> web.StreamResponse:
    """`HEAD /api/assets/hash/{hash}`: whether the caller has that content."""
    digest = request.match_info["hash"]
    if len(digest.rpartition(":")[2]) != 64:
        raise Declined(400, "INVALID_HASH", f"{digest[:80]!r} is not blake3:<64 hexadecimal digits>")
    uploaded = await asyncio.to_thread(store_of(request).by_hash, digest)
    found = uploaded or await request.app[OUTPUTS].by_hash(request[OWNER], digest)
    return web.Response(status=200 if found is not None else 404)


async def change(request: web.Request) -> web.StreamResponse:
    """`PUT /api/assets/{id}`: another name, other notes."""
    asked = await body_of(request, Change)
    given = {"file_path": asked.name, "user_metadata": asked.user_metadata}
    changes = {name: value for name, value in given.items() if value is not None}
    return reply(_record(await _changed(request, lambda asset: changes)))


async def delete(request: web.Request) -> web.StreamResponse:
    """`DELETE /api/assets/{id}`: the record, and with the last one of a content the content."""
    async with own_lock(request):
        store = store_of(request)
        await asyncio.to_thread(store.delete, await _own(request))
    return web.Response(status=204)


async def add_tags(request: web.Request) -> web.StreamResponse:
    """`POST /api/assets/{id}/tags`."""
    asked = (await body_of(request, Tags)).tags
    known: list[str] = []

    def added(asset: Asset) -> dict[str, Any]:
        known.extend(asset.tags)
        return {"tags": [*asset.tags, *(tag for tag in asked if tag not in asset.tags)]}

    total = sorted((await _changed(request, added)).tags)
    new = [tag for tag in asked if tag not in known]
    return reply({"added": new, "already_present": [tag for tag in asked if tag in known], "total_tags": total})


async def remove_tags(request: web.Request) -> web.StreamResponse:
    """`DELETE /api/assets/{id}/tags`."""
    asked = (await body_of(request, Tags)).tags
    known: list[str] = []

    def removed(asset: Asset) -> dict[str, Any]:
        known.extend(asset.tags)
        return {"tags": [tag for tag in asset.tags if tag not in asked]}

    total = sorted((await _changed(request, removed)).tags)
    gone = [tag for tag in asked if tag in known]
    return reply({"removed": gone, "not_present": [tag for tag in asked if tag not in known], "total_tags": total})


async def _asset(request: web.Request) -> Asset:
    """An upload, or an output with its digest."""
    asset_id = request.match_info["id"]
    try:
        return await asyncio.to_thread(store_of(request).get, asset_id)
    except MissingFile:
        found = next((asset for asset in await _every(request) if asset.id == asset_id), None)
        if found is None:
            raise
        return (await asyncio.to_thread(_read, [found]))[0]


async def _own(request: web.Request) -> Asset:
    """An upload, which its owner may change."""
    asset = await _asset(request)
    if isinstance(asset, OutputAsset):
        raise Declined(409, "ASSET_IMMUTABLE", "an output belongs to its job, and goes with its file", id=asset.id)
    return asset


async def _changed(request: web.Request, changes: Callable[[Asset], dict[str, Any]]) -> Asset:
    """One change after another: each sees what the one before left."""
    async with own_lock(request):
        asset = await _own(request)
        return await asyncio.to_thread(lambda: store_of(request).change(asset, **changes(asset)))


# -- new ones ----------------------------------------------------------------------------------------------------


async def upload(request: web.Request) -> web.StreamResponse:
    """`POST /api/assets`, a form: `file` or a known `hash`; `tags`, `name`, `user_metadata`, `mime_type`."""
    if not request.content_type.startswith("multipart/"):
        raise Declined(415, "UNSUPPORTED_MEDIA_TYPE", "Use multipart/form-data for uploads.")
    form = await multipart_body(request)
    part = form.get("file")
    values: dict[str, Any] = {name: value for name, value in form.items() if isinstance(value, str)}
    asked = read(NewRecord, values | {"tags": [tag for tag in form.getall("tags", []) if isinstance(tag, str)]})
    if not isinstance(part, web.FileField):
        if asked.hash is None:
            raise Declined(400, "MISSING_FILE", "Form must include a 'file' part or a known 'hash'.")
        return reply(await _referred(request, asked) | {"created_new": False})
    name = asked.name or part.filename
    kind = asked.mime_type or part.content_type or content_type(name)
    store = store_of(request)
    async with own_lock(request):
        try:
            known, is_new = await asyncio.to_thread(store.add, part.file, part.filename, kind, asked.hash)
        except BadValue as error:
            status, code = (409, "HASH_MISMATCH") if "expected_hash" in str(error) else (413, "PAYLOAD_TOO_LARGE")
            raise Declined(status, code, str(error)) from error
        mine = known if is_new else await asyncio.to_thread(store.refer, known)
        made = {"file_path": name, "tags": asked.tags, "user_metadata": asked.user_metadata}
        asset = await asyncio.to_thread(lambda: store.change(mine, **made))
    return reply(_record(asset) | {"created_new": is_new}, 201 if is_new else 200)


async def from_hash(request: web.Request) -> web.StreamResponse:
    """`POST /api/assets/from-hash`: another record of a content that the caller has."""
    asked = await body_of(request, NewRecord)
    if not asked.hash:
        raise Declined(400, "INVALID_BODY", "the field 'hash' is missing")
    return reply(await _referred(request, asked) | {"created_new": False}, 201)


async def _referred(request: web.Request, asked: NewRecord) -> dict[str, Any]:
    store = store_of(request)
    async with own_lock(request):
        known = await asyncio.to_thread(store.by_hash, asked.hash or "")
        if known is None:
            output = await request.app[OUTPUTS].by_hash(request[OWNER], asked.hash or "")
            known = await asyncio.to_thread(_copied, store, output) if output is not None else None
        if known is None:
            raise Declined(404, "ASSET_NOT_FOUND", NO_CONTENT)
        made = {"file_path": asked.name or known.file_path, "tags": asked.tags, "user_metadata": asked.user_metadata}
        return _record(await asyncio.to_thread(lambda: store.change(store.refer(known), **made)))


def _copied(store: AssetStore, output: OwnedOutput) -> Asset:
    """An output as an upload, which has a record of its own and stays when the output goes."""
    try:
        with output.path.open("rb") as file:
            return store.add(file, output.path.name, content_type(output.path.name), None)[0]
    except BadValue as error:
        raise Declined(413, "PAYLOAD_TOO_LARGE", str(error)) from error


async def seed(request: web.Request) -> web.StreamResponse:
    """`POST /api/assets/seed`: an upload is listed at once, so there is nothing to look for."""
    return reply({"status": "completed"})


async def seed_status(request: web.Request) -> web.StreamResponse:
    """`GET /api/assets/seed/status`."""
    return reply({"state": "IDLE", "progress": None, "errors": []})


def _record(asset: Asset) -> dict[str, Any]:
    """An asset as the editor reads it; `filename` is what loader nodes call it."""
    is_output = isinstance(asset, OutputAsset)
    kind, name = ("output", asset.name.removesuffix(" [output]")) if is_output else ("input", asset.name)
    folder, _, filename = name.rpartition("/")
    is_picture = asset.content_type.startswith("image/")
    preview = f"/api/view?type={kind}&filename={quote(filename)}&subfolder={quote(folder)}"
    return {
        "id": asset.id,
        "name": asset.file_path,
        "hash": asset.hash,
        "asset_hash": asset.hash,
        "size": asset.size_bytes,
        "mime_type": asset.content_type,
        "tags": sorted(asset.tags),
        **({"preview_url": preview} if is_picture else {}),
        "loader_path": asset.name,
        "user_metadata": {**asset.user_metadata, "filename": asset.name},
        "is_immutable": is_output,
        "created_at": _instant(asset.created_at),
        "updated_at": _instant(asset.updated_at or asset.created_at),
        "last_access_time": _instant(asset.created_at),
    }


def _instant(at: float) -> str:
    """A time as the editor reads it: UTC, without saying so."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat()
