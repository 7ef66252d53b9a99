"""What the page asks of the server itself: versions, devices, flags, extensions, translations, blueprints."""

import asyncio
import os
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.graph.replacements import replacements_of
from sigmagraph.engine.host import free_bytes, limit_bytes, version_of
from sigmagraph.engine.server.access.auth import require
from sigmagraph.engine.server.context import JOBS, SETTINGS, empty, reply
from sigmagraph.engine.server.packs import scripts
from sigmagraph.engine.server.settings import Settings
from sigmagraph.engine.server.transport.request_bodies import object_body

__all__ = [
    "EXTENSIONS",
    "extensions",
    "features",
    "flags",
    "free",
    "node_replacements",
    "nothing",
    "subgraph",
    "system_stats",
]

# the ComfyUI spoken to a page, a semantic version: the editor writes it into drawings, and sampler names follow it
SPOKEN_VERSIONS = {"0.3": "0.3.64"}
MENU = "/pages/editor-link.js"
EXTENSIONS: web.AppKey[Path | None] = web.AppKey("extensions")


async def system_stats(request: web.Request) -> web.Response:
    """`GET /system_stats`. `argv` keeps the page from calling services of Comfy Org."""
    total, left = limit_bytes(), free_bytes()
    system = {
        "os": os.name,
        "ram_total": total,
        "ram_free": left,
        "comfyui_version": spoken_version(request.app[SETTINGS].comfyui),
        "sigmagraph_version": version_of("sigmagraph"),
        "python_version": version_of("python"),
        "pytorch_version": version_of("torch"),
        "embedded_python": False,
        "has_editor": request.app[EXTENSIONS] is not None,
        "argv": ["sigmagraph", "--disable-api-nodes"],
    }
    frontend = version_of("comfyui-frontend-package")
    if frontend and request.app[SETTINGS].frontend is None:
        system["required_frontend_version"] = frontend
    devices = [device for worker in request.app[JOBS].workers() for device in worker.stats.get("devices", ())]
    return reply({"system": system, "devices": devices or [_unknown_device(total, left)]})


def spoken_version(setting: str) -> str:
    """The setting `comfyui` as a version of three numbers."""
    return SPOKEN_VERSIONS.get(setting, ".".join([*setting.split("."), "0", "0"][:3]))


def _unknown_device(total: int, left: int) -> dict[str, Any]:
    """Clients read `devices[0]`; before a worker has spoken it is the machine itself."""
    sizes = {"vram_total": total, "vram_free": left, "torch_vram_total": total, "torch_vram_free": left}
    return {"name": "cpu", "type": "cpu", "index": None, **sizes}


def flags(settings: Settings) -> dict[str, Any]:
    """What this server can do beyond the basic protocol."""
    known = {"supports_preview_metadata": True, "node_replacements": True}
    assets = {"assets": True} if settings.editor_assets else {}
    return {**known, **assets, "max_upload_size": settings.max_upload_bytes}


async def features(request: web.Request) -> web.Response:
    """`GET /features`: the same as the first message on the socket."""
    return reply(flags(request.app[SETTINGS]))


async def extensions(request: web.Request) -> web.Response:
    """`GET /extensions`: scripts of the frontend's folder, of packs, and the one that adds our pages to its menu."""
    root = request.app[EXTENSIONS]
    if root is None:
        return reply([])
    paths = sorted((root / "extensions").rglob("*.js"))
    own = (f"/{path.relative_to(root).as_posix()}" for path in paths)
    return reply([*own, *await asyncio.to_thread(scripts, request.app), MENU])


async def nothing(request: web.Request) -> web.Response:
    """Translations, blueprints: this server has none."""
    return reply({})


async def node_replacements(request: web.Request) -> web.Response:
    """`GET /node_replacements`: what stands in for classes that are gone, by the old class."""
    found = replacements_of(await request.app[JOBS].nodes())
    return reply({old: [replacement.wire()] for old, replacement in found.items()})


async def subgraph(request: web.Request) -> web.Response:
    """One blueprint: there are none."""
    return reply({"error": f"there is no subgraph {request.match_info['id']!r}"}, 404)


async def free(request: web.Request) -> web.Response:
    """`POST /free`: let go of weights or cached results after the running job. Everybody feels it."""
    require(request, "admin")
    body = await object_body(request)
    await request.app[JOBS].free(
        unload_models=bool(body.get("unload_models")), free_memory=bool(body.get("free_memory"))
    )
    return empty()
