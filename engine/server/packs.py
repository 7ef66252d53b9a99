"""What packs bring for the page: their scripts as files, their routes by way of the worker. Each only by its setting.

No code of a pack runs here. A route is asked of the worker over a socket; what goes there has no keys and no cookies,
what comes back is data in the page's eyes: a document among it runs no scripts.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, UnixConnector, web
from yarl import URL

from sigmagraph.engine.server.access.auth import require
from sigmagraph.engine.server.access.origin import is_foreign
from sigmagraph.engine.server.context import JOBS, OWNER, SETTINGS
from sigmagraph.engine.server.static import inside, send
from sigmagraph.engine.server.transport.relay import RelayPlaces, relayed
from sigmagraph.engine.server.transport.request_bodies import read_body

__all__ = ["PACK_SESSION", "from_packs", "pack_routes", "reach_packs", "scripts"]

AT_ONCE, SHARE = 8, 6
"""Requests handed on at a time, of all and of one owner: a browser opens six connections to a server."""
QUIET_S, WRITE_S = 30.0, 30.0
"""Seconds a pack may say nothing, and seconds a reader may take nothing."""
LARGEST = 8 * 1024 * 1024
"""Bytes of a body that is handed on: it is held in memory."""
ASKED = ("Accept", "Content-Type", "If-Modified-Since", "If-None-Match", "If-Range", "Range")
TOLD = ("Accept-Ranges", "Content-Disposition", "Content-Range", "Content-Type", "ETag", "Last-Modified")
SANDBOX = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
SHOWN = frozenset(
    (
        *(".avif", ".css", ".gif", ".html", ".ico", ".jpeg", ".jpg", ".js", ".json", ".map", ".mjs", ".mp3", ".ogg"),
        *(".png", ".svg", ".ttf", ".txt", ".wasm", ".webp", ".woff", ".woff2"),
    )
)
"""Endings of files for a page: a pack whose folder of scripts is all of it shows no more than these."""
FRESH = {"Cache-Control": "no-cache"}
PACK_SESSION: web.AppKey[ClientSession] = web.AppKey("pack session", ClientSession)
PLACES: web.AppKey[RelayPlaces] = web.AppKey("pack places", RelayPlaces)


def reach_packs(place: Path) -> Any:
    """A context of the application: the way to the worker's socket."""

    async def reach(app: web.Application) -> AsyncIterator[None]:
        timeout = ClientTimeout(total=None, sock_connect=2.0, sock_read=QUIET_S)
        connector = UnixConnector(str(place), limit=AT_ONCE)
        app[PLACES] = RelayPlaces(AT_ONCE, SHARE)
        async with ClientSession(connector=connector, timeout=timeout, cookie_jar=DummyCookieJar()) as session:
            app[PACK_SESSION] = session
            yield

    return reach


def pack_routes() -> list[web.RouteDef]:
    """Every route of a pack under its name."""
    return [web.route("*", "/packs/{pack}/{path:.+}", by_name)]


def scripts(app: web.Application) -> list[str]:
    """What the editor is to load of packs, where the operator wants it: `/extensions/PACK/FILE.js`."""
    if not app[SETTINGS].pack_web:
        return []
    return [
        f"/extensions/{pack}/{file.relative_to(root).as_posix()}"
        for pack, root in sorted(_folders(app).items())
        for file in sorted(root.rglob("*.js"))
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    ]


async def by_name(request: web.Request) -> web.StreamResponse:
    """`/packs/PACK/PATH`: the route PATH of that pack, which need not be free in this server."""
    _, _, pack, path = request.path.split("/", 3)
    raw = request.rel_url.raw_path.split("/", 3)[3]
    if not _is_route(request, f"/{path}", pack):
        raise web.HTTPNotFound
    return await _handed_on(request, f"/{raw}")


async def from_packs(request: web.Request) -> web.StreamResponse:
    """A path that no route and no file of this server has: a script of a pack, or a route as the pack registered it."""
    path, raw = (one.removeprefix("/api") for one in (request.path, request.rel_url.raw_path))
    settings = request.app[SETTINGS]
    if settings.pack_web and request.method in ("GET", "HEAD") and (file := _script(request, path)) is not None:
        return send(*file, FRESH)
    if settings.pack_routes and _is_route(request, path, None):
        return await _handed_on(request, raw)
    raise web.HTTPNotFound


def _script(request: web.Request, path: str) -> tuple[Path, Path] | None:
    """The folder of a pack's scripts, and the file in it that a path means."""
    _, _, rest = path.partition("/extensions/")
    pack, _, name = rest.partition("/")
    root = _folders(request.app).get(pack) if path.startswith("/extensions/") else None
    file = inside(root, name) if root is not None else None
    if root is None or file is None or file.suffix.lower() not in SHOWN:
        return None
    is_hidden = any(part.startswith(".") for part in file.relative_to(root.resolve()).parts)
    return None if is_hidden or not file.is_file() else (root, file)


def _folders(app: web.Application) -> dict[str, Path]:
    """Pack -> its folder of scripts, as workers told it; none that lies outside of the operator's folders of packs."""
    allowed = [folder.resolve() for folder in app[SETTINGS].custom_nodes]
    found = {str(pack): Path(str(place)) for told in _told(app) for pack, place in dict(told.get("web", {})).items()}
    return {pack: place for pack, place in found.items() if any(place.resolve().is_relative_to(one) for one in allowed)}


def _told(app: web.Application) -> Iterator[Mapping[str, Any]]:
    """What each worker said about its packs."""
    for worker in app[JOBS].workers():
        yield worker.stats.get("packs", {})


def _is_route(request: web.Request, path: str, pack: str | None) -> bool:
    """Whether a pack registered a route that may be meant; the worker's own router has the last word."""
    rows: list[Sequence[str]] = [row for told in _told(request.app) for row in told.get("routes", ())]
    methods = {"*", request.method, "GET" if request.method == "HEAD" else request.method}
    return any(
        pack in (None, owner)
        and method in methods
        and (path == route or ("{" in route and path.startswith(route.partition("{")[0])))
        for owner, method, route in rows
    )


async def _handed_on(request: web.Request, raw_path: str) -> web.StreamResponse:
    """The worker's answer. With keys this takes an administrator's: packs' code knows no owners."""
    require(request, "admin")
    allowed = request.app[SETTINGS].cors_origin
    if is_foreign(request) and (allowed is None or request.headers.get("Origin") != allowed):
        raise web.HTTPForbidden(text="pages of other sites may not call routes of packs")
    places, owner = request.app[PLACES], request[OWNER]
    places.refuse_when_full(owner)  # before its body is taken in
    body = await read_body(request, LARGEST)
    headers = {name: request.headers[name] for name in ASKED if name in request.headers}
    target = f"http://packs{raw_path}" + (f"?{request.rel_url.raw_query_string}" if request.query_string else "")
    with places.hold(owner):
        try:
            return await _asked(request, request.app[PACK_SESSION], target, headers, body)
        except TimeoutError as error:
            raise web.HTTPGatewayTimeout(text=f"the pack said nothing for {QUIET_S:g} s") from error
        except ClientError as error:
            raise web.HTTPServiceUnavailable(text="the worker serves no routes of packs now") from error


async def _asked(
    request: web.Request, session: ClientSession, target: str, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    url = URL(target, encoded=True)
    async with session.request(
        request.method, url, headers=headers, data=BytesIO(body) if body else None, allow_redirects=False
    ) as answer:
        if answer.status in (101, 301, 302, 303, 307, 308):
            raise web.HTTPBadGateway(text="a pack's route answered with a redirect or an upgrade, which end here")
        return await relayed(request, answer, _headers(answer), WRITE_S)


def _headers(answer: ClientResponse) -> dict[str, str]:
    """What of the pack's headers goes on: nothing that sets cookies or policies of this server."""
    return {name: answer.headers[name] for name in TOLD if name in answer.headers} | SANDBOX
