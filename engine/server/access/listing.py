"""`GET /keys`: who may call, and what is left of their credits, for an administrator."""

from typing import Any

from aiohttp import web

from sigmagraph.engine.jobs.billing.accounts import Account
from sigmagraph.engine.server.access.auth import KEYS, require
from sigmagraph.engine.server.context import reply
from sigmagraph.engine.units import CREDIT

__all__ = ["KEY_ROWS"]


async def listing(request: web.Request) -> web.Response:
    """Every key but itself, the oldest first; amounts in credits. With keys in use an administrator's."""
    require(request, "admin")
    return reply({"keys": [_record(account) for account in await request.app[KEYS].listed()]})


def _record(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "hint": account.hint,
        "scopes": sorted(account.scopes),
        "endpoints": sorted(account.endpoints) if account.endpoints is not None else None,
        **{name: getattr(account, name) / CREDIT for name in ("credits", "held", "spent")},
        "requests_per_minute": account.requests_per_minute,
        "revoked": account.revoked_at is not None,
    }


KEY_ROWS = (("GET", "/keys", listing),)
