"""The pages for people: files of `web/pages`, under a policy that lets nothing else in."""

from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from sigmagraph.engine.server.estimate import estimate
from sigmagraph.engine.server.lab import plan
from sigmagraph.engine.server.needs import needs
from sigmagraph.engine.server.pages_inspect import inspect
from sigmagraph.engine.server.sampling_facts import samplers
from sigmagraph.engine.server.static import inside, send
from sigmagraph.engine.shipped import SHIPPED

__all__ = ["PAGE_ROWS", "home", "page_routes"]

FOLDER = SHIPPED / "web" / "pages"
PAGES: Mapping[str, str] = {
    "/home": "home.html",
    "/run": "run.html",
    "/gallery": "gallery.html",
    "/lab": "lab.html",
    "/system": "system.html",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FILE = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
PAGE_ROWS: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/inspect", inspect),
    ("POST", "/lab/plan", plan),
    ("POST", "/estimate", estimate),
    ("GET", "/samplers", samplers),
    ("GET", "/needs", needs),
)


async def home(request: web.Request) -> web.StreamResponse:
    """The home page, which is also `/` where there is no editor."""
    return send(FOLDER, FOLDER / PAGES["/home"], PAGE)


def page_routes() -> list[web.RouteDef]:
    """Each page by its path, and the scripts and the style that they share."""
    return [*(web.get(path, _page(name)) for path, name in PAGES.items()), web.get("/pages/{file}", _file)]


def _page(name: str) -> Handler:
    async def page(request: web.Request) -> web.StreamResponse:
        """One of the pages for people."""
        return send(FOLDER, FOLDER / name, PAGE)

    return page


async def _file(request: web.Request) -> web.StreamResponse:
    """A script, the style or a picture of the pages; they change with the server, so they are asked for again."""
    path = inside(FOLDER, request.match_info["file"])
    if path is None or path.suffix == ".html":
        raise web.HTTPNotFound
    return send(FOLDER, path, FILE)
