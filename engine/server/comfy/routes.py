"""Which path is whose: every route of the protocol, with and without the prefix `/api`."""

from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine.server.comfy import (
    jobs,
    models,
    object_info,
    preferences,
    prompt,
    queue,
    system,
    uploads,
    userdata,
)
from sigmagraph.engine.server.comfy.help import node_help
from sigmagraph.engine.server.comfy.internal import internal_routes
from sigmagraph.engine.server.comfy.socket import socket
from sigmagraph.engine.server.comfy.templates import template_routes
from sigmagraph.engine.server.comfy.view import view
from sigmagraph.engine.server.sse import job_events

__all__ = ["comfy_routes", "mirrored"]

Row = tuple[str, str, Handler]

RUNNING: tuple[Row, ...] = (
    ("GET", "/ws", socket),
    ("GET", "/prompt", prompt.count),
    ("POST", "/prompt", prompt.submit),
    ("GET", "/queue", queue.queue),
    ("POST", "/queue", queue.change_queue),
    ("POST", "/interrupt", queue.interrupt),
    ("GET", "/history", queue.history),
    ("POST", "/history", queue.change_history),
    ("GET", "/history/{id}", queue.one_history),
    ("GET", "/jobs", jobs.listing),
    ("POST", "/jobs/cancel", jobs.cancel_many),
    ("GET", "/jobs/{id}", jobs.one),
    ("POST", "/jobs/{id}/cancel", jobs.cancel_one),
    ("GET", "/jobs/{id}/events", job_events),
    ("POST", "/free", system.free),
)
DESCRIBING: tuple[Row, ...] = (
    ("GET", "/object_info", object_info.all_info),
    ("GET", "/object_info/{class}", object_info.one_info),
    ("GET", "/system_stats", system.system_stats),
    ("GET", "/features", system.features),
    ("GET", "/extensions", system.extensions),
    ("GET", "/i18n", system.nothing),
    ("GET", "/workflow_templates", system.nothing),
    ("GET", "/node_replacements", system.node_replacements),
    ("GET", "/global_subgraphs", system.nothing),
    ("GET", "/global_subgraphs/{id}", system.subgraph),
    ("GET", "/models", models.model_folders),
    ("GET", "/models/{folder}", models.model_folder),
    ("GET", "/embeddings", models.embeddings),
    ("GET", "/experiment/models", models.experiment_models),
    ("GET", "/experiment/models/{folder}", models.experiment_folder),
    ("GET", "/experiment/models/preview/{folder}/{index}/{file:.+}", models.preview),
    ("GET", "/view_metadata/{folder}", models.view_metadata),
)
KEEPING: tuple[Row, ...] = (
    ("GET", "/view", view),
    ("POST", "/upload/image", uploads.upload_image),
    ("POST", "/upload/mask", uploads.upload_mask),
    ("GET", "/users", preferences.users),
    ("POST", "/users", preferences.add_user),
    ("GET", "/settings", preferences.all_settings),
    ("POST", "/settings", preferences.store_all),
    ("GET", "/settings/{id}", preferences.one_setting),
    ("POST", "/settings/{id}", preferences.store_one),
    ("GET", "/userdata", userdata.listing),
    ("GET", "/v2/userdata", userdata.listing_v2),
    ("GET", "/userdata/{file}", userdata.read),
    ("POST", "/userdata/{file}", userdata.write),
    ("DELETE", "/userdata/{file}", userdata.delete),
    ("POST", "/userdata/{file}/move/{dest}", userdata.move),
)


OWN = (web.get("/user.css", userdata.user_css), web.get("/docs/{node}/{locale}.md", node_help))
"""These are not mirrored."""


def comfy_routes() -> list[web.RouteDef]:
    """The whole protocol."""
    plain = [*internal_routes(), *template_routes(), *OWN]
    return [*mirrored((*RUNNING, *DESCRIBING, *KEEPING)), *plain]


def mirrored(rows: Iterable[Row]) -> list[web.RouteDef]:
    """Each route twice: bare, and below `/api`. GET answers HEAD as well."""
    routes: list[web.RouteDef] = []
    for method, path, handler in rows:
        for prefix in ("", "/api"):
            make = {"GET": web.get, "POST": web.post, "DELETE": web.delete}[method]
            routes.append(make(prefix + path, handler))
    return routes
