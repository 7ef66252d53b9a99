"""`GET /object_info`: node declarations, with the file lists of whoever asks as they are now."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from engine.errors import EngineError
from engine.graph.node import Node
from engine.server.context import JOBS, Places, folders, reply

__all__ = ["all_info", "declarations", "one_info"]

LOG = logging.getLogger("sigmagraph.comfy")


async def all_info(request: web.Request) -> web.Response:
    """Every class; one that cannot describe itself is left out."""
    return reply(await declarations(request))


async def one_info(request: web.Request) -> web.Response:
    """One class; `{}` for one there is not."""
    nodes = await request.app[JOBS].nodes()
    name = request.match_info["class"]
    return reply(_described(nodes, [name] if name in nodes else [], folders(request)))


async def declarations(request: web.Request) -> dict[str, Any]:
    """Class -> declaration in the wire form."""
    nodes = await request.app[JOBS].nodes()
    return await asyncio.to_thread(_described, nodes, list(nodes), folders(request))


def _described(nodes: Mapping[str, Node], names: Iterable[str], places: Places) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = nodes[name].object_info(places)
        except (EngineError, OSError, ValueError, TypeError) as error:
            LOG.warning("a node class cannot describe itself", extra={"class_type": name, "error": str(error)})
    return found
