"""Which path is whose, and how the application gets them: `mount`."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.jobs.protocol import Jobs
from sigmagraph.engine.server.context import JOBS
from sigmagraph.engine.server.endpoints import calls, request_status
from sigmagraph.engine.server.endpoints.context import PUBLISHED, Published
from sigmagraph.engine.server.endpoints.endpoint import declaration_problems
from sigmagraph.engine.server.endpoints.guard import GUARDED, RoutePolicy, guarded
from sigmagraph.engine.server.endpoints.refusal import Refused
from sigmagraph.engine.server.endpoints.retention import sweep_outputs
from sigmagraph.engine.server.endpoints.viewer import make_doors

__all__ = ["PATHS", "mount"]

FLOWS = "/workflows/{slug}"
"""Only a POST to a published slug is ours there: all else is the stored workflows', which have their own adapter.

A stored workflow of the same name is still fetched, run and deleted there, and saved below `/api/workflows`.
"""
LOG = logging.getLogger("sigmagraph.server")

PATHS: Mapping[str, Mapping[str, RoutePolicy]] = {
    "/v1/get-user-credits": {"GET": RoutePolicy(request_status.credit)},
    "/v1/requests/{id}": {"GET": RoutePolicy(request_status.result)},
    "/v1/{slug}": {"POST": RoutePolicy(calls.call, "submit")},
    "/v2/requests/{id}": {"GET": RoutePolicy(request_status.result)},
    "/v2/requests/{id}/status": {"GET": RoutePolicy(request_status.status)},
    "/v2/requests/{id}/cancel": {
        "POST": RoutePolicy(request_status.cancel, "submit"),
        "PUT": RoutePolicy(request_status.cancel, "submit"),
    },
    "/v2/requests/{id}/events": {"GET": RoutePolicy(request_status.events)},
    "/v2/{slug}": {"POST": RoutePolicy(calls.submit, "submit")},
    "/workflows/request/{id}": {"GET": RoutePolicy(request_status.flow_state)},
    "/workflows/{slug}": {"POST": RoutePolicy(calls.flow, "submit")},
    "/outputs/{id}/{name}": {"GET": RoutePolicy(request_status.picture, None)},
}


def mount(app: web.Application, published: Published | None) -> None:
    """Give the application the published workflows and their paths; without any there are no such paths."""
    if published is None:
        app[GUARDED] = frozenset()
        return
    slugs = "|".join(re.escape(slug) for slug in published.endpoints)
    every_path = {**make_doors(PATHS), **PATHS}
    flows = every_path.pop(FLOWS)
    routes = [web.route("*", path, guarded(policies)) for path, policies in every_path.items()]
    flow, path = guarded(flows), FLOWS.replace("{slug}", f"{{slug:{slugs}}}")
    routes += [web.route(verb, path, flow) for verb in ("POST", "PUT", "PATCH") if slugs]
    nothing = RoutePolicy(_nothing)
    every = dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), nothing)
    routes += [web.route("*", f"/{root}/{{rest:.*}}", guarded(every)) for root in ("v1", "v2", "outputs")]
    app[PUBLISHED] = published
    app[GUARDED] = frozenset(route.handler for route in routes)
    app.add_routes(routes)
    app.cleanup_ctx.extend((check_graphs, sweep_outputs))


async def check_graphs(app: web.Application) -> AsyncIterator[None]:
    """Hold every endpoint against the worker's nodes once it is ready; what is wrong is logged, calls still answer."""
    task = asyncio.create_task(_check(app[JOBS], app[PUBLISHED]))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _check(jobs: Jobs, published: Published) -> None:
    try:
        nodes = await jobs.nodes()
    except EngineError as error:
        LOG.warning("published workflows are not checked", extra={"error": str(error)})
        return
    for endpoint in published.endpoints.values():
        for problem in declaration_problems(endpoint, nodes):
            LOG.error("published workflow", extra={"file": str(endpoint.path), "problem": problem})


async def _nothing(request: web.Request) -> web.Response:
    raise Refused(404, "not_found", "The requested URL does not exist")
