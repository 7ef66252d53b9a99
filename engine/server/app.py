"""The application: the job service, folders and settings it is given, and the routes and middlewares round them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler

from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.access.auth import KEYS, RATES, auth, login_routes
from sigmagraph.engine.server.access.key_list import KEY_ROWS
from sigmagraph.engine.server.access.keys import KnownKeys
from sigmagraph.engine.server.access.origin import options, origins
from sigmagraph.engine.server.access.owner_locks import LOCKS, OwnerLocks
from sigmagraph.engine.server.access.rates import Buckets
from sigmagraph.engine.server.access.wrong_keys import WRONG_KEYS, WrongKeys
from sigmagraph.engine.server.comfy.finding import SEARCHING
from sigmagraph.engine.server.comfy.hub import HUB, Hub, run_hub
from sigmagraph.engine.server.comfy.internal import LINES
from sigmagraph.engine.server.comfy.routes import comfy_routes, mirrored
from sigmagraph.engine.server.comfy.socket import SOCKETS
from sigmagraph.engine.server.comfy.streamed_lists import LISTINGS, Listings
from sigmagraph.engine.server.comfy.system import EXTENSIONS
from sigmagraph.engine.server.comfy_api import described
from sigmagraph.engine.server.comfy_api.editor_assets import editor_routes
from sigmagraph.engine.server.comfy_api.outputs import OUTPUTS, Outputs
from sigmagraph.engine.server.comfy_api.refusals import envelopes
from sigmagraph.engine.server.comfy_api.routes import api_routes
from sigmagraph.engine.server.context import (
    FOLDERS,
    JOBS,
    OPERATIONS,
    SCHEMAS,
    SETTINGS,
    USER_DIR,
    WORKFLOWS,
    OwnerFolders,
)
from sigmagraph.engine.server.decoding.pool import DECODERS, Decoders, Limits, run_decoders
from sigmagraph.engine.server.decoding.shares import Shares
from sigmagraph.engine.server.deliveries import DELIVERY_ROWS
from sigmagraph.engine.server.endpoints.context import Published
from sigmagraph.engine.server.endpoints.guard import own_policy
from sigmagraph.engine.server.endpoints.routes import mount
from sigmagraph.engine.server.errors import answer_errors, note_begin
from sigmagraph.engine.server.monitoring.health import WARM, Readiness, health, ready, warm_up
from sigmagraph.engine.server.monitoring.job_log import keep_journal
from sigmagraph.engine.server.monitoring.logs import RecentLines
from sigmagraph.engine.server.monitoring.metrics import METRICS, Metrics, count_jobs, count_requests, metrics
from sigmagraph.engine.server.monitoring.traces import trace_jobs
from sigmagraph.engine.server.monitoring.workers import workers
from sigmagraph.engine.server.own_files import QUOTA, quota_of
from sigmagraph.engine.server.packs import from_packs, pack_routes, reach_packs
from sigmagraph.engine.server.pages import PAGE_ROWS, home, page_routes
from sigmagraph.engine.server.reordering import PLACE_ROWS
from sigmagraph.engine.server.replay import REPLAY_ROWS
from sigmagraph.engine.server.settings import Settings
from sigmagraph.engine.server.static import frontend_routes, keep_private
from sigmagraph.engine.server.transport.allocator import give_back_regularly
from sigmagraph.engine.server.transport.body_budget import BUDGET, FORMS, FORMS_AT_ONCE, FORMS_EACH, BodyBudget
from sigmagraph.engine.server.transport.connections import CONNECTIONS, Connections, watch_connections, watched
from sigmagraph.engine.server.transport.request_bodies import HANDLER, let_go
from sigmagraph.engine.server.unpriced import SHOWING
from sigmagraph.engine.server.workflows import WORKFLOW_ROWS

__all__ = ["ServerParts", "make_app"]

DECODED = ".decoded"
COMPRESSED = ("application/json", "text/plain")


@dataclass
class ServerParts:
    """What the composition root hands over."""

    jobs: Jobs
    folders: Callable[[str], OwnerFolders]
    keys: KnownKeys
    settings: Settings
    user_dir: Path
    workflows: Path
    frontend: Path | None = None
    published: Published | None = None
    connections: Connections = field(default_factory=lambda: Connections(1000))
    lines: RecentLines = field(default_factory=RecentLines)
    more_routes: Iterable[web.AbstractRouteDef] = ()
    warms_up: bool = True
    pack_socket: Path | None = None


def make_app(parts: ServerParts) -> web.Application:
    """The application, complete; its start starts the hub, not the job service."""
    middlewares = (
        watched,
        let_go,
        count_requests,
        options,
        compress,
        origins,
        own_policy,
        envelopes,
        answer_errors,
        auth,
    )
    app = web.Application(
        middlewares=middlewares, client_max_size=parts.settings.max_upload_bytes, handler_args=HANDLER
    )
    app[JOBS], app[FOLDERS], app[KEYS] = parts.jobs, parts.folders, parts.keys
    app[SETTINGS], app[USER_DIR], app[WORKFLOWS] = parts.settings, parts.user_dir, parts.workflows
    app[EXTENSIONS], app[LINES] = parts.frontend, parts.lines
    app[HUB], app[SOCKETS], app[LOCKS] = Hub(parts.jobs), set(), OwnerLocks()
    app[QUOTA] = quota_of(parts.user_dir, parts.folders, parts.settings)
    app[LISTINGS], app[WRONG_KEYS] = Listings(), WrongKeys()
    app[OPERATIONS], app[SCHEMAS] = described.OPERATIONS, described.SCHEMAS
    app[OUTPUTS] = Outputs(parts.jobs, parts.folders)
    app[RATES] = Buckets(time.monotonic, lambda: parts.jobs.servers)
    app[SHOWING], app[SEARCHING] = Shares(2, time.monotonic), Shares(2, time.monotonic)
    app[CONNECTIONS] = parts.connections
    largest = parts.settings.max_upload_bytes
    app[BUDGET] = BodyBudget(largest, 2 * largest)
    app[FORMS] = BodyBudget(FORMS_EACH * largest, FORMS_AT_ONCE * largest, "the disk")
    app[METRICS], app[WARM] = Metrics(), Readiness()
    app[DECODERS] = Decoders(parts.user_dir / DECODED, _limits(parts.settings))
    app.cleanup_ctx.extend((run_decoders, run_hub, count_jobs, trace_jobs, keep_journal, follow_log, watch_connections))
    app.cleanup_ctx.append(give_back_regularly)
    if parts.warms_up:
        app.cleanup_ctx.append(warm_up)
    app.on_shutdown.append(close_sockets)
    app.on_response_prepare.extend((keep_private, note_begin))
    operating = (
        ("GET", "/health", health),
        ("GET", "/ready", ready),
        ("GET", "/metrics", metrics),
        ("GET", "/workers", workers),
    )
    app.add_routes(parts.more_routes)
    mount(app, parts.published)
    app.add_routes(
        [
            *mirrored((*operating, *REPLAY_ROWS, *WORKFLOW_ROWS, *DELIVERY_ROWS, *PAGE_ROWS, *PLACE_ROWS, *KEY_ROWS)),
            *login_routes(),
            *api_routes(),
            *(editor_routes() if parts.settings.editor_assets else ()),
        ]
    )
    app.add_routes([*comfy_routes(), *page_routes()])
    if parts.pack_socket is not None:
        app.cleanup_ctx.append(reach_packs(parts.pack_socket))
        app.add_routes(pack_routes())
    has_packs = parts.pack_socket is not None or parts.settings.pack_web
    app.add_routes(frontend_routes(parts.frontend, home, from_packs if has_packs else None))
    return app


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_pixels, settings.decode_s, int(settings.decode_mb * 1024 * 1024))


async def close_sockets(app: web.Application) -> None:
    """Tell every page that the server goes away, so that it begins to look for it at once."""
    closing = [ws.close(code=WSCloseCode.GOING_AWAY, message=b"server stops") for ws in app[SOCKETS]]
    await asyncio.gather(*closing, return_exceptions=True)


async def follow_log(app: web.Application) -> AsyncIterator[None]:
    """Pass new log lines to the clients that asked for them; lines come from any thread."""
    loop, hub, lines = asyncio.get_running_loop(), app[HUB], app[LINES]

    def listener(record: logging.LogRecord) -> None:
        if hub.log_readers:
            loop.call_soon_threadsafe(hub.logged, lines.entry(record))

    lines.listeners.append(listener)
    yield
    lines.listeners.remove(listener)


@web.middleware
async def compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gzip JSON and text where the operator and the client want it."""
    response = await handler(request)
    is_plain = isinstance(response, web.Response) and response.content_type in COMPRESSED and not response.prepared
    if request.app[SETTINGS].compress and is_plain and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response
