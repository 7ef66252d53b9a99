"""`/openapi.json`, and `/api-docs`: a page that shows it and can try it, from files of this machine alone."""

import asyncio
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.host import version_of
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.context import FOLDERS, JOBS, SCHEMAS, compact
from sigmagraph.engine.server.endpoints.context import PUBLISHED, base_url
from sigmagraph.engine.server.endpoints.every_path import every_path
from sigmagraph.engine.server.endpoints.guard import GUARDED, RoutePolicy
from sigmagraph.engine.server.endpoints.openapi import document
from sigmagraph.engine.server.endpoints.refusal import Refused
from sigmagraph.engine.server.static import send
from sigmagraph.engine.shipped import SHIPPED

__all__ = ["make_doors"]

WEB = SHIPPED / "web"
PATIENCE_S = 2.0
KEPT_S, MOST_KEPT = 2.0, 8
"""The document is made anew every two seconds at most: it needs no key, and looks into the folders of models."""
ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
OWN = {"start.js": ("api-docs.js", "text/javascript")}
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src *"
AGAIN = {"Cache-Control": "no-cache"}
HOW = "The viewer is not installed: pip install 'sigmagraph[docs]'. /openapi.json needs none.\n"


def make_doors(paths: Mapping[str, Mapping[str, RoutePolicy]]) -> dict[str, Mapping[str, RoutePolicy]]:
    """The paths of the description itself, which needs no key."""

    async def openapi(request: web.Request) -> web.Response:
        """`GET /openapi.json`: this document."""
        base, now = base_url(request), time.monotonic()
        text, until = kept.get(base, ("", 0.0))
        if now > until:
            text = compact(await described_by(request, described, base))
            if len(kept) >= MOST_KEPT:
                kept.clear()
            kept[base] = text, now + KEPT_S
        return web.Response(text=text, content_type="application/json", charset="utf-8")

    kept: dict[str, tuple[str, float]] = {}
    described = {**paths, "/openapi.json": {"GET": RoutePolicy(openapi, None)}}
    return {
        "/openapi.json": {"GET": RoutePolicy(openapi, None)},
        "/api-docs": {"GET": RoutePolicy(page, None)},
        "/api-docs/{file}": {"GET": RoutePolicy(asset, None)},
    }


async def described_by(request: web.Request, paths: Mapping[str, Mapping[str, RoutePolicy]], base: str) -> Any:
    """The document as the files of models are now."""
    published, nodes, places = request.app[PUBLISHED], await _nodes(request), request.app[FOLDERS](LOCAL)
    allowed = {slug: endpoint.allowed(nodes, places) for slug, endpoint in published.endpoints.items()}
    found = document(paths, published.endpoints, allowed, base, version_of("sigmagraph") or "0")
    found["components"]["schemas"] |= request.app[SCHEMAS]
    return found | {"paths": found["paths"] | every_path(request.app, request.app[GUARDED])}


async def page(request: web.Request) -> web.Response:
    """`GET /api-docs`: the page."""
    if _bundle() is None:
        return web.Response(text=HOW, status=404)
    text = (WEB / "api-docs.html").read_text("utf-8")
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": POLICY})


async def asset(request: web.Request) -> web.StreamResponse:
    """`GET /api-docs/{file}`: the viewer's files."""
    name, bundle = request.match_info["file"], _bundle()
    if name in OWN:
        own, kind = OWN[name]
        return send(WEB, WEB / own, {"Content-Type": kind} | AGAIN)
    if bundle is None or name not in ASSETS:
        raise Refused(404, "not_found", "The requested URL does not exist")
    return send(bundle, bundle / name, {"Content-Type": ASSETS[name]} | AGAIN)


async def _nodes(request: web.Request) -> Mapping[str, Node]:
    """The node declarations, if the worker is there; without it the lists of names are left out."""
    try:
        return await asyncio.wait_for(request.app[JOBS].nodes(), PATIENCE_S)
    except (EngineError, TimeoutError):
        return {}


def _bundle() -> Path | None:
    """The folder of the installed viewer."""
    spec = importlib.util.find_spec("swagger_ui_bundle")
    places: Any = spec.submodule_search_locations if spec is not None else None
    found = [path for place in places or () for path in Path(place).glob("vendor/swagger-ui-*")]
    return max(found, default=None)
