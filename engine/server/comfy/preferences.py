"""Users and their settings: one flat JSON object per owner. Ids and values are the page's own, never checked."""

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.server.access.owner_locks import own_lock
from sigmagraph.engine.server.comfy.userdata import user_root
from sigmagraph.engine.server.context import empty, reply
from sigmagraph.engine.server.transport.request_bodies import json_body
from sigmagraph.engine.writing import make_folder, write_file

__all__ = ["add_user", "all_settings", "one_setting", "store_all", "store_one", "users"]

MOST_BYTES = 1024 * 1024
FILE = "comfy.settings.json"


async def users(request: web.Request) -> web.Response:
    """One user per owner: the page shows no choice of users."""
    return reply({"storage": "server", "migrated": True})


async def add_user(request: web.Request) -> web.Response:
    """Users are API keys here; the page cannot make them."""
    return reply({"error": "users are made with `sigmagraph keys create`"}, 400)


async def all_settings(request: web.Request) -> web.Response:
    """Everything that was set."""
    return reply(await asyncio.to_thread(_load, user_root(request) / FILE))


async def one_setting(request: web.Request) -> web.Response:
    """One value, null where it was not set."""
    stored = await asyncio.to_thread(_load, user_root(request) / FILE)
    return reply(stored.get(request.match_info["id"]))


async def store_all(request: web.Request) -> web.Response:
    """Set each key of the object sent."""
    body = await json_body(request)
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    await _merge(request, body)
    return empty()


async def store_one(request: web.Request) -> web.Response:
    """Set one value."""
    await _merge(request, {request.match_info["id"]: await json_body(request)})
    return empty()


async def _merge(request: web.Request, values: dict[str, Any]) -> None:
    root = user_root(request)
    async with own_lock(request):
        await asyncio.to_thread(_store, root, values)


def _store(root: Path, values: dict[str, Any]) -> None:
    """What was set before and now; no indentation, which of nested lists makes many times their size."""
    data = json.dumps(_load(root / FILE) | values, separators=(",", ":")).encode()
    if len(data) > MOST_BYTES:
        raise web.HTTPRequestEntityTooLarge(MOST_BYTES, len(data), text=f"settings have {MOST_BYTES} bytes at most")
    make_folder(root)
    write_file(root / FILE, data)


def _load(path: Path) -> dict[str, Any]:
    """The stored object; a damaged file counts as empty, the page must still come up."""
    try:
        stored = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}
