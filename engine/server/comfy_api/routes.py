"""Which path is whose below `/api/v2`."""

from aiohttp import web

from sigmagraph.engine.server.comfy_api import assets, events, jobs
from sigmagraph.engine.server.comfy_api.job_json import ROOT
from sigmagraph.engine.server.comfy_api.refusals import answered
from sigmagraph.engine.server.context import reply

__all__ = ["api_routes"]


async def health(request: web.Request) -> web.StreamResponse:
    """`GET /health`: the process answers."""
    return reply({"status": "healthy"})


ROWS = (
    ("GET", "/health", health),
    ("POST", "/jobs", jobs.submit),
    ("GET", "/jobs", jobs.listing),
    ("GET", "/jobs/{id}", jobs.fetch),
    ("GET", "/jobs/{id}/workflow", jobs.workflow),
    ("GET", "/jobs/{id}/events", events.events),
    ("POST", "/jobs/{id}/cancel", jobs.cancel),
    ("POST", "/assets", assets.upload),
    ("POST", "/assets/from-hash", assets.from_hash),
    ("POST", "/assets/from-path", assets.from_path),
    ("HEAD", "/assets/by-hash/{hash}", assets.by_hash),
    ("GET", "/assets/{id}", assets.fetch),
    ("GET", "/assets/{id}/content", assets.content),
    ("DELETE", "/assets/{id}", assets.delete),
)


def api_routes() -> list[web.RouteDef]:
    """The routes. GET answers HEAD as well."""
    makers = {"GET": web.get, "POST": web.post, "DELETE": web.delete, "HEAD": web.head}
    return [makers[method](ROOT + path, answered(handler)) for method, path, handler in ROWS]
