"""Who is asking: an API key becomes an owner and its scopes. A server without keys has one owner, `local`."""

import base64
import binascii
import html
import math
from collections.abc import Collection, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.jobs.billing.accounts import Account
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.access.keys import KnownKeys
from sigmagraph.engine.server.access.rates import Buckets
from sigmagraph.engine.server.access.wrong_keys import may_try_key
from sigmagraph.engine.server.context import OWNER, SETTINGS, empty
from sigmagraph.engine.server.transport.request_bodies import LOGIN, form_body
from sigmagraph.engine.shipped import SHIPPED

__all__ = [
    "COOKIE",
    "KEYS",
    "RATES",
    "SCOPES",
    "RateReached",
    "auth",
    "login_routes",
    "require",
    "require_any_graph",
    "shows_key",
    "take_turn",
]

COOKIE = "sigmagraph_key"
READS = frozenset({"GET", "HEAD"})
OPEN: Mapping[str, Collection[str]] = {"/health": READS, "/api/health": READS, "/login": READS | {"POST"}}
"""What answers strangers, by path and verb: with other verbs a pack's route that catches all would be reached."""
WEB = SHIPPED / "web"
LOGIN_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
PAGES = frozenset({"/home", "/run", "/gallery", "/lab", "/system"})
"""The pages for people, which ask for a key by way of the login page and then go on."""


KEYS: web.AppKey[KnownKeys] = web.AppKey("keys", KnownKeys)
SCOPES: web.RequestKey[Collection[str]] = web.RequestKey("scopes", Collection)
RATE: web.RequestKey[float] = web.RequestKey("rate", float)
"""Graphs a minute that the key may submit; not there on a server without keys."""
RATES: web.AppKey[Buckets] = web.AppKey("rates", Buckets)
IS_COUNTED: web.RequestKey[bool] = web.RequestKey("is_counted", bool)
IS_LIMITED: web.RequestKey[bool] = web.RequestKey("is_limited", bool)
EVERYTHING = frozenset({"read", "submit", "admin"})


class RateReached(EngineError):
    """The key has submitted as many graphs as it may in a minute; the message says how long to wait."""

    code = "rate_limited"

    def __init__(self, wait_s: float) -> None:
        self.wait_s = math.ceil(wait_s)
        super().__init__(f"rate limit reached: try again in {self.wait_s} s")


@web.middleware
async def auth(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its owner and scopes, or refuse it."""
    keys = request.app[KEYS]
    request[OWNER], request[SCOPES], request[IS_LIMITED] = LOCAL, EVERYTHING, False
    if request.method in OPEN.get(request.path, ()) or not await keys.required():
        return await handler(request)
    key = _key(request)
    account = await _identified(request, key) if key else None
    if account is None:
        return _refused(request)
    request[OWNER], request[SCOPES], request[IS_LIMITED] = account.id, account.scopes, account.endpoints is not None
    own = account.requests_per_minute
    request[RATE] = own if own is not None else request.app[SETTINGS].requests_per_minute
    require(request, "read" if request.method in ("GET", "HEAD", "OPTIONS") else "submit")
    return await handler(request)


def require(request: web.Request, scope: str) -> None:
    """403 unless the key has the scope."""
    scopes: Collection[str] = request[SCOPES]
    if not {scope, "admin"} & set(scopes):
        raise web.HTTPForbidden(text=f"this key lacks the scope {scope!r}")


def require_any_graph(request: web.Request) -> None:
    """403 for a key that is for published workflows only, whose prices must not be got round; 429 beyond its rate."""
    if request[IS_LIMITED]:
        raise web.HTTPForbidden(text="this key may run published workflows only: POST /v1/{slug}")
    take_turn(request)


def take_turn(request: web.Request) -> None:
    """Count a request that reads a graph against its key's rate, once; 429 beyond it."""
    if RATE in request and IS_COUNTED not in request:
        request[IS_COUNTED] = True
        taken = request.app[RATES].take(request[OWNER], request[RATE])
        if not taken.is_allowed:
            raise RateReached(taken.wait_s)


async def _identified(request: web.Request, key: str) -> Account | None:
    """The account of a key; raises `TooManyWrongKeys` where too many wrong ones came from there."""
    with may_try_key(request, key) as tell:
        account = await request.app[KEYS].identify(key)
        tell(account is not None)
    return account


def shows_key(request: web.Request) -> bool:
    """Whether the request names a key in a header that no page can have a browser send to another site.

    A name and password are no such header: a browser that once opened `http://name:key@host/` sends them by itself.
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    return scheme == "bearer" or (not scheme and bool(request.headers.get("X-API-Key")))


def _key(request: web.Request) -> str | None:
    """The key of a request: a bearer token, `X-API-Key`, the password of basic authentication, or the login cookie."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return request.headers.get("X-API-Key") or request.cookies.get(COOKIE)


def _refused(request: web.Request) -> web.Response:
    """People are sent to the login page, programs get a 401."""
    is_page = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
    if is_page and request.path in ("/", "/api/"):
        raise web.HTTPFound("/login")
    if is_page and request.path in PAGES:
        raise web.HTTPFound(f"/login?next={request.path}")
    response = web.Response(status=401, text="a key is needed: Authorization: Bearer <key>")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _login_page(request: web.Request) -> web.Response:
    """The page where a person enters a key."""
    return _page("")


async def _login(request: web.Request) -> web.Response:
    """Keep the key in a cookie that scripts cannot read and other sites cannot send."""
    key = (await form_body(request, LOGIN)).get("key", "").strip()
    if await _identified(request, key) is None:
        return _page("This key is not known.", 401)
    response = web.Response(status=303, headers={"Location": _next(request)})
    is_https = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
    response.set_cookie(COOKIE, key, httponly=True, samesite="Strict", secure=is_https, max_age=30 * 24 * 3600)
    return response


def _next(request: web.Request) -> str:
    """Where a person wanted to go: one of our own pages, never another site's."""
    wanted = request.query.get("next", "/")
    return wanted if wanted in PAGES else "/"


async def _logout(request: web.Request) -> web.Response:
    """Forget the key that the browser keeps."""
    response = empty()
    response.del_cookie(COOKIE)
    return response


def _page(message: str, status: int = 200) -> web.Response:
    text = (WEB / "login.html").read_text("utf-8").replace("<!-- message -->", html.escape(message))
    headers = {"Content-Security-Policy": LOGIN_POLICY}
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def login_routes() -> list[web.RouteDef]:
    """The page where a person enters a key, and the way out."""
    return [web.get("/login", _login_page), web.post("/login", _login), web.post("/logout", _logout)]
