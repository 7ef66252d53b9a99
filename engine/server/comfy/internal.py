"""`/internal/*`: the page's console, hints for missing models, lists of files. Not mirrored under `/api`."""

import asyncio
import shutil
from typing import Any

from aiohttp import web

from sigmagraph.engine.model_folders import MODEL_FOLDERS
from sigmagraph.engine.server.access.auth import SCOPES
from sigmagraph.engine.server.comfy.hub import HUB
from sigmagraph.engine.server.context import OWNER, empty, folders, reply
from sigmagraph.engine.server.monitoring.logs import RecentLines
from sigmagraph.engine.server.transport.request_bodies import object_body

__all__ = ["LINES", "internal_routes"]

LINES: web.AppKey[RecentLines] = web.AppKey("lines", RecentLines)


def internal_routes() -> list[web.RouteDef]:
    """The routes."""
    return [
        web.get("/internal/logs", _logs),
        web.get("/internal/logs/raw", _raw_logs),
        web.patch("/internal/logs/subscribe", _subscribe),
        web.get("/internal/folder_paths", _folder_paths),
        web.get("/internal/files/{place}", _files),
    ]


def _entries(request: web.Request) -> list[dict[str, str]]:
    """The last lines; they speak of everybody's jobs, so only an administrator sees any."""
    return request.app[LINES].entries if "admin" in request[SCOPES] else []


async def _logs(request: web.Request) -> web.Response:
    """The last lines of the log, as one string."""
    return reply("".join(f"{entry['t']} - {entry['m']}" for entry in _entries(request)))


async def _raw_logs(request: web.Request) -> web.Response:
    """The last lines of the log, each with its time."""
    columns, rows = shutil.get_terminal_size()
    return reply({"entries": _entries(request), "size": {"cols": columns, "rows": rows}})


async def _subscribe(request: web.Request) -> web.Response:
    """Send new lines of the log to this client's socket, or no more."""
    body = await object_body(request)
    if "admin" in request[SCOPES]:
        hub = request.app[HUB]
        hub.follow_logs(request[OWNER], str(body.get("clientId", "")), bool(body.get("enabled")))
    return empty()


async def _folder_paths(request: web.Request) -> web.Response:
    """The folders of models, by name only."""
    return reply({name: [name] for name in MODEL_FOLDERS})


async def _files(request: web.Request) -> web.Response:
    """Names in the folder itself, newest first."""
    places = folders(request)
    roots = {"input": places.input_dir, "output": places.output_dir, "temp": places.temp_dir}
    root = roots.get(request.match_info["place"])
    if root is None:
        raise web.HTTPBadRequest

    def names() -> list[Any]:
        files = [path for path in root.iterdir() if path.is_file()] if root.is_dir() else []
        files = [path for path in files if not path.name.startswith(".")]
        return [path.name for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)]

    return reply(await asyncio.to_thread(names))
