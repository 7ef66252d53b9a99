"""`GET /jobs/{id}/deliveries`: what was told to a job's webhook, try by try."""

from dataclasses import asdict

from aiohttp import web

from sigmagraph.engine.server.context import JOBS, OWNER, reply

__all__ = ["DELIVERY_ROWS"]


async def deliveries(request: web.Request) -> web.Response:
    """The delivery log of one job; empty where it has no webhook or has not ended. Times are seconds since 1970."""
    found = await request.app[JOBS].deliveries(request.match_info["id"], request[OWNER])
    return reply({"deliveries": [asdict(delivery) for delivery in found]})


DELIVERY_ROWS = (("GET", "/jobs/{id}/deliveries", deliveries),)
