"""Which web pages may call: the guard against other sites' pages, and CORS where the operator allows an origin."""

import socket
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from sigmagraph.engine.server.access.auth import COOKIE, shows_key
from sigmagraph.engine.server.context import SETTINGS
from sigmagraph.engine.server.settings import Settings, is_loopback

__all__ = ["is_foreign", "options", "origins", "own_origin"]

METHODS = "POST, GET, DELETE, PUT, PATCH, OPTIONS"
SESSION = frozenset({"/login", "/logout"})
USUAL_PORTS = {"http": 80, "https": 443}
KNOWN_HOSTS = 64
"""Host headers that are remembered as read: clients repeat theirs with every request."""
HEADERS = "Content-Type, Authorization, X-API-Key, Comfy-User, Idempotency-Key, Last-Event-ID"


@web.middleware
async def origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what another site's page sends; with CORS on, mark every answer instead."""
    settings = request.app[SETTINGS]
    reason = _cookie_refusal(request, settings)
    if reason is None and settings.cors_origin is None:
        reason = _refusal(request, settings.is_loopback, settings.hosts)
    if reason is not None:
        return web.Response(status=403, text=reason)
    if settings.cors_origin is None:
        return await handler(request)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_cors(settings.cors_origin))
        raise
    if not response.prepared:
        response.headers.update(_cors(settings.cors_origin))
    return response


@web.middleware
async def options(request: web.Request, handler: Handler) -> web.StreamResponse:
    """OPTIONS is answered for any path, known or not; a page of the allowed origin asks so before it calls."""
    if request.method != "OPTIONS":
        return await handler(request)
    allowed = request.app[SETTINGS].cors_origin
    return web.Response(status=200, headers=_cors(allowed) if allowed is not None else None)


def _cors(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": HEADERS,
        "Access-Control-Allow-Credentials": "true",
    }


def _refusal(request: web.Request, is_local_server: bool, known: tuple[str, ...]) -> str | None:
    """Why the request is refused: a name that only looks like this machine, or a page from elsewhere.

    A page of another site whose name was re-pointed at 127.0.0.1 sends its own name as Host and an equal Origin; on a
    loopback server the Host must therefore be a loopback name, this machine's, or one the operator listed.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    name = _name(host)
    if is_local_server and host and not _is_known(name, known):
        return f"{name} is not a name of this server; list it in the setting `hosts`"
    if origin is None or not (is_loopback(name) or is_local_server):
        return None
    if origin == "null":
        # a sandboxed frame of any site; browsers send a socket's handshake without Sec-Fetch-Site
        is_own = request.headers.get("Sec-Fetch-Site") in ("same-origin", "none")
        return None if is_own else "pages without an origin may not call"
    return (
        None if _is_equal(host, origin) else f"a page of {origin} may not call {host}: open the page as http://{host}"
    )


def _cookie_refusal(request: web.Request, settings: Settings) -> str | None:
    """Why a request is refused that a browser sends a cookie or password with by itself, or that would get one.

    Whoever shows a key in a header means it; a cookie comes along with whatever a page asks for. A link that somebody
    follows to a page here is let through: what it shows is not seen by the page that holds the link.
    """
    is_signed_in = COOKIE in request.cookies or "Authorization" in request.headers
    if not (is_signed_in and not shows_key(request)) and not (request.method == "POST" and request.path in SESSION):
        return None
    origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
    known = {address.rstrip("/") for address in (settings.cors_origin, settings.public_url) if address}
    is_own = request.headers.get("Sec-Fetch-Site") == "same-origin" and origin != "null"
    if origin is not None and origin not in known and not (_is_same(host, origin) or is_own):
        return f"a page of {origin[:200]} may not use the key of this browser at {host}"
    is_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    is_page = request.headers.get("Sec-Fetch-Dest") == "document"
    if origin is None and is_foreign(request) and not (is_link and is_page):
        return "pages of other sites may not use the key of this browser"
    return None


def own_origin(request: web.Request) -> str:
    """`http://host:port` as the client wrote it where that is a name of this server, else its address.

    What a client writes into Host must not choose where the URLs lead that are told to others.
    """
    settings = request.app[SETTINGS]
    name = _name(request.headers.get("Host", ""))
    address = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if address is None or name in (address[0], settings.host) or _is_known(name, settings.hosts):
        return _origin(request.scheme, request.host)
    return str(URL.build(scheme=request.scheme, host=address[0], port=address[1]))


@lru_cache(KNOWN_HOSTS)
def _origin(scheme: str, host: str) -> str:
    return str(URL.build(scheme=scheme, authority=host).origin())


def _is_known(name: str, known: tuple[str, ...]) -> bool:
    """Whether a name is this machine's, or one the operator listed."""
    return is_loopback(name) or name in map(str.lower, known) or name == socket.gethostname().lower()


@lru_cache(KNOWN_HOSTS)
def _name(host: str) -> str:
    """The name in a Host header; empty where there is none to be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_foreign(request: web.Request) -> bool:
    """What a browser says of a request that a sandboxed page of another site makes."""
    return request.headers.get("Sec-Fetch-Site", "").lower() in ("cross-site", "same-site")


def _is_same(host: str, origin: str) -> bool:
    """Whether Host and Origin agree in name and port: another server of the same machine shares its cookies."""
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        usual = USUAL_PORTS.get(theirs.scheme)
        if ours.hostname != theirs.hostname:
            return False
        return theirs.port in (None, usual) if ours.port is None else ours.port == (theirs.port or usual)
    except ValueError:
        return False


def _is_equal(host: str, origin: str) -> bool:
    """Host and Origin name the same server; an Origin without a port equals any."""
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        return ours.hostname == theirs.hostname and theirs.port in (None, ours.port)
    except ValueError:
        return False
