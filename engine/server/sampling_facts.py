"""`GET /samplers`: what is declared about every sampler and schedule, as a worker that is ready told it."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.server.context import JOBS, reply

__all__ = ["samplers", "sampling_facts"]

NONE: Mapping[str, Mapping[str, Any]] = {"samplers": {}, "schedules": {}}


async def samplers(request: web.Request) -> web.Response:
    """`GET /samplers`: `samplers` and `schedules`, each name with what `sigmagraph samplers --json` says of it."""
    await request.app[JOBS].nodes()  # waits for a worker that has told them
    return reply(sampling_facts(request))


def sampling_facts(request: web.Request) -> Mapping[str, Mapping[str, Any]]:
    """Both tables; empty where no worker has nodes that sample."""
    told = (worker.stats.get("sampling") for worker in request.app[JOBS].workers())
    return next((facts for facts in told if facts), NONE)
