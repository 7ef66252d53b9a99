"""Files over HTTP: the one function that sends them, the editor's build, and who may keep a copy of a reply."""

import importlib.util
import mimetypes
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from aiohttp import web
from aiohttp.typedefs import Handler

__all__ = ["content_type", "find_frontend", "frontend_routes", "inside", "keep_private", "send"]

TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".md": "text/markdown",
    ".wasm": "application/wasm",
    ".safetensors": "application/octet-stream",
}
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".ico", ".bmp", ".avif"})
FRESH = {"Cache-Control": "no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}
PRIVATE = "private, no-store"
"""A reply to somebody: no proxy keeps it, and no browser that several people use."""


def find_frontend() -> Path | None:
    """The folder of the installed frontend package, if it is installed."""
    spec = importlib.util.find_spec("comfyui_frontend_package")
    places = spec.submodule_search_locations if spec is not None else None
    root = Path(next(iter(places))) / "static" if places else None
    return root if root is not None and (root / "index.html").is_file() else None


def content_type(name: str) -> str:
    """The type of a file by its name."""
    return TYPES.get(PurePosixPath(name).suffix.lower()) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def send(root: Path, path: Path, headers: Mapping[str, str] | None = None) -> web.FileResponse:
    """A file below `root` with its type; 404 where it is not a file there, whatever the path says.

    Every file this server sends goes through here. Ranges, ETag and Last-Modified are aiohttp's.
    """
    found = path.resolve()
    if not found.is_relative_to(root.resolve()) or not found.is_file():
        raise web.HTTPNotFound
    return web.FileResponse(found, headers={"Content-Type": content_type(path.name), **(headers or {})})


def inside(root: Path, name: str) -> Path | None:
    """The file or folder that a client's relative `name` means below `root`, or None where it leads anywhere else.

    The path is judged by where it ends, not by how it is spelt: `//etc`, `/%2Fetc`, `..` and links out of the folder
    all resolve to a place that is not below `root`.
    """
    if not name or "\0" in name or "\\" in name:
        return None
    folder = root.resolve()
    try:
        path = (folder / name).resolve()
        path.is_dir()  # resolving asks no disk about what is not there
    except (OSError, RuntimeError):  # a name too long for the file system; a link that leads to itself
        return None
    return path if path != folder and path.is_relative_to(folder) else None


def frontend_routes(root: Path | None, instead: Handler, otherwise: Handler | None = None) -> list[web.RouteDef]:
    """`/` and every path no other route took, as files below `root`; there is no fall-back to the index page.

    Without an editor `/` is answered by `instead`. What is no file there is answered by `otherwise`, if it is given.
    """

    async def index(request: web.Request) -> web.StreamResponse:
        """The editor, or the home page where there is none."""
        if root is None:
            return await instead(request)
        return send(root, root / "index.html", FRESH)

    async def file(request: web.Request) -> web.StreamResponse:
        path = inside(root, request.match_info["path"]) if root is not None else None
        if otherwise is not None and (path is None or not path.exists()):
            return await otherwise(request)
        if root is None or path is None:
            raise web.HTTPNotFound
        if path.is_dir():
            raise web.HTTPForbidden
        return send(root, path, _rule(path))

    routes = [web.get("/", index), web.get("/api/", index), web.get("/{path:.+}", file)]
    return routes if otherwise is None else [*routes, web.route("*", "/{path:.+}", otherwise)]


def _rule(path: Path) -> dict[str, str]:
    """What pages rely on: scripts and indexes are asked for again each time, pictures are kept for a day."""
    name, suffix = path.name, path.suffix.lower()
    if suffix in (".js", ".css", ".mjs") or (name.startswith("index") and suffix == ".json"):
        return {"Cache-Control": "no-cache"}
    return {"Cache-Control": "public, max-age=86400"} if suffix in PICTURES else {}


async def keep_private(request: web.Request, response: web.StreamResponse) -> None:
    """Whatever says nothing else is for the one who asked, and is not kept; called before a reply begins."""
    response.headers.setdefault("Cache-Control", PRIVATE)
