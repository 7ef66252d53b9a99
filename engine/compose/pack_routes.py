"""Routes that packs register, served in the worker on a socket that the front reaches. Packs' code runs here only.

The front hands on what it lets through. A handler that blocks keeps this loop waiting, and no job: jobs have threads of
their own.
"""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

from aiohttp import web

__all__ = ["serve_routes"]

LOG = logging.getLogger("sigmagraph.packs")
START_S = 10.0


def serve_routes(server: Any, place: Path) -> list[list[str]]:
    """Serve what packs registered at `PromptServer.instance` on a socket at `place`: pack, method and path of each."""
    taken = list(_added(server))
    found = [*taken, *(row for row in _other(server.app) if row[1:] not in [one[1:] for one in taken])]
    if found:
        loop, is_up = asyncio.new_event_loop(), Event()
        server.loop = loop
        Thread(target=_run, args=(loop, server.app, place, is_up), name="pack routes", daemon=True).start()
        if not is_up.wait(START_S):
            LOG.error("routes of packs are not served: their socket did not open within %g s", START_S)
            return []
    return found


def _added(server: Any) -> Iterator[list[str]]:
    """The routes of its table, put into its application one by one: a path that two packs want is the first one's."""
    for route in server.routes:
        method, path = getattr(route, "method", "GET"), getattr(route, "path", getattr(route, "prefix", ""))
        pack = server.routes.packs.get(id(route), "")
        try:
            route.register(server.app.router)
        except (RuntimeError, ValueError) as error:
            LOG.warning("a route of %s is left out: %s %s: %s", pack or "a pack", method, path, error)
            continue
        yield [pack, method, str(path)]


def _other(app: web.Application) -> Iterator[list[str]]:
    """What packs put into the application itself."""
    for route in app.router.routes():
        if route.resource is not None:
            module = str(getattr(route.handler, "__module__", ""))
            pack = module.split(".")[1] if module.startswith("custom_nodes.") else ""
            yield [pack, route.method, route.resource.canonical]


def _run(loop: asyncio.AbstractEventLoop, app: web.Application, place: Path, is_up: Event) -> None:
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_open(app, place))
    is_up.set()
    loop.run_forever()


async def _open(app: web.Application, place: Path) -> None:
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    place.unlink(missing_ok=True)  # of a worker that died
    await web.UnixSite(runner, str(place)).start()
    place.chmod(0o600)
