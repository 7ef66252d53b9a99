"""Files of a folder over HTTP: the editor's build, with the content types and cache rules its pages rely on."""

import importlib.util
import mimetypes
from pathlib import Path, PurePosixPath

from aiohttp import web
from aiohttp.typedefs import Handler

__all__ = ["cache_rules", "find_frontend", "frontend_routes", "inside", "send"]

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
NO_EDITOR = "The editor is not installed: pip install 'sigmagraph[editor]'. The API answers all the same.\n"


def find_frontend() -> Path | None:
    """The folder of the installed frontend package, if it is installed."""
    spec = importlib.util.find_spec("comfyui_frontend_package")
    places = spec.submodule_search_locations if spec is not None else None
    root = Path(next(iter(places))) / "static" if places else None
    return root if root is not None and (root / "index.html").is_file() else None


def content_type(name: str) -> str:
    """The type of a file by its name."""
    return TYPES.get(PurePosixPath(name).suffix.lower()) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def send(path: Path) -> web.FileResponse:
    """A file with its type; ranges, ETag and Last-Modified are aiohttp's."""
    return web.FileResponse(path, headers={"Content-Type": content_type(path.name)})


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
    except (OSError, RuntimeError):  # a name too long for the file system; a link that leads to itself
        return None
    return path if path != folder and path.is_relative_to(folder) else None


def frontend_routes(root: Path | None) -> list[web.RouteDef]:
    """`/` and every path no other route took, as files below `root`; there is no fall-back to the index page."""

    async def index(request: web.Request) -> web.StreamResponse:
        if root is None:
            return web.Response(text=NO_EDITOR)
        response = send(root / "index.html")
        response.headers.update(FRESH)
        return response

    async def file(request: web.Request) -> web.StreamResponse:
        path = inside(root, request.match_info["path"]) if root is not None else None
        if path is None:
            raise web.HTTPNotFound
        if path.is_dir():
            raise web.HTTPForbidden
        if not path.is_file():
            raise web.HTTPNotFound
        return send(path)

    return [web.get("/", index), web.get("/api/", index), web.get("/{path:.+}", file)]


@web.middleware
async def cache_rules(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Scripts and indexes are asked for again each time, pictures are kept for a day."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        if error.status == 404 and _suffix(request) in PICTURES:
            error.headers["Cache-Control"] = "public, max-age=3600"
        raise
    if not response.prepared and "Cache-Control" not in response.headers:
        rule = _rule(request, response.status)
        if rule is not None:
            response.headers["Cache-Control"] = rule
    return response


def _rule(request: web.Request, status: int) -> str | None:
    name, suffix = PurePosixPath(request.path).name, _suffix(request)
    if suffix in (".js", ".css", ".mjs") or (name.startswith("index") and suffix == ".json"):
        return "no-cache"
    if suffix in PICTURES and status in (200, 404):
        return f"public, max-age={86400 if status == 200 else 3600}"
    return None


def _suffix(request: web.Request) -> str:
    return PurePosixPath(request.path).suffix.lower()
