"""Which path is whose, and how the application gets them: `mount`."""

from collections.abc import Mapping

from aiohttp import web

from engine.server.endpoints import calls, requests
from engine.server.endpoints.context import PUBLISHED, Published
from engine.server.endpoints.guard import GUARDED, Door, guarded
from engine.server.endpoints.refusal import Refused

__all__ = ["PATHS", "mount"]

PATHS: Mapping[str, Mapping[str, Door]] = {
    "/v1/get-user-credits": {"GET": Door(requests.credit)},
    "/v1/requests/{id}": {"GET": Door(requests.result)},
    "/v1/{slug}": {"POST": Door(calls.call, "submit")},
    "/v2/requests/{id}": {"GET": Door(requests.result), "DELETE": Door(requests.cancel, "submit")},
    "/v2/requests/{id}/status": {"GET": Door(requests.status)},
    "/v2/requests/{id}/cancel": {"POST": Door(requests.cancel, "submit"), "PUT": Door(requests.cancel, "submit")},
    "/v2/requests/{id}/events": {"GET": Door(requests.events)},
    "/v2/{slug}": {"POST": Door(calls.submit, "submit")},
    "/workflows/request/{id}": {"GET": Door(requests.flow_state)},
    "/workflows/{slug}": {"POST": Door(calls.flow, "submit")},
    "/outputs/{id}/{name}": {"GET": Door(requests.picture, None)},
}


def mount(app: web.Application, published: Published | None) -> None:
    """Give the application the published workflows and their paths; without any there are no such paths."""
    if published is None:
        app[GUARDED] = frozenset()
        return
    routes = [web.route("*", path, guarded(doors)) for path, doors in PATHS.items()]
    nothing = Door(_nothing)
    every = dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), nothing)
    routes += [web.route("*", f"/{root}/{{rest:.*}}", guarded(every)) for root in ("v1", "v2", "workflows", "outputs")]
    app[PUBLISHED] = published
    app[GUARDED] = frozenset(route.handler for route in routes)
    app.add_routes(routes)


async def _nothing(request: web.Request) -> web.Response:
    raise Refused(404, "not_found", "The requested URL does not exist")
