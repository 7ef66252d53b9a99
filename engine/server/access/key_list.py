"""`GET /keys`: who may call, and what is left of their credits, for an administrator."""

from aiohttp import web

from sigmagraph.engine.server.access.auth import KEYS, require
from sigmagraph.engine.server.context import reply

__all__ = ["KEY_ROWS"]


async def listing(request: web.Request) -> web.Response:
    """Every key but itself, the oldest first; amounts in credits. With keys in use an administrator's."""
    require(request, "admin")
    found = await request.app[KEYS].listed()
    return reply({"keys": [one.described() | {"requests_per_minute": one.requests_per_minute} for one in found]})


KEY_ROWS = (("GET", "/keys", listing),)
