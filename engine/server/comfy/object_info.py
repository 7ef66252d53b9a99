"""`GET /object_info`: node declarations, with the file lists of whoever asks as they are now."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.server.context import JOBS, OwnerFolders, folders, reply

__all__ = ["all_info", "declarations", "declarations_of", "described", "one_info"]

# Page 1.27.10 looks these up without asking whether they are there; one missing, and no loader can be drawn.
PAGE_LOADERS = (
    "CheckpointLoaderSimple",
    "ControlNetLoader",
    "GLIGENLoader",
    "ImageOnlyCheckpointLoader",
    "LoraLoader",
    "LoraLoaderModelOnly",
    "StyleModelLoader",
    "UNETLoader",
    "UpscaleModelLoader",
    "VAELoader",
)
LOG = logging.getLogger("sigmagraph.comfy")


async def all_info(request: web.Request) -> web.Response:
    """Every class; one that cannot describe itself is left out. The page's own header tells it from other clients."""
    found = await declarations(request)
    if "Comfy-User" in request.headers:
        found |= {name: _stand_in(name) for name in PAGE_LOADERS if name not in found}
    return reply(found)


async def one_info(request: web.Request) -> web.Response:
    """One class; `{}` for one there is not."""
    nodes = await request.app[JOBS].nodes()
    name = request.match_info["class"]
    return reply(described(nodes, [name] if name in nodes else [], folders(request)))


async def declarations(request: web.Request) -> dict[str, Any]:
    """Class -> declaration in the wire form."""
    nodes = await request.app[JOBS].nodes()
    return await asyncio.to_thread(described, nodes, list(nodes), folders(request))


async def declarations_of(request: web.Request, names: Iterable[str]) -> dict[str, Any]:
    """Those of these classes; one that is not there is a box without sockets."""
    nodes, wanted = await request.app[JOBS].nodes(), dict.fromkeys(names)
    known = [name for name in wanted if name in nodes]
    found = await asyncio.to_thread(described, nodes, known, folders(request))
    return {name: found[name] if name in found else _stand_in(name) for name in wanted}


def _stand_in(name: str) -> dict[str, Any]:
    """A class the page must find and nobody should use: deprecated, so that the page hides it."""
    return {
        "input": {"required": {}},
        "input_order": {"required": []},
        "output": [],
        "output_is_list": [],
        "output_name": [],
        "name": name,
        "display_name": name,
        "description": "Not available on this server.",
        "python_module": "nodes",
        "category": "unavailable",
        "output_node": False,
        "deprecated": True,
    }


def described(nodes: Mapping[str, Node], names: Iterable[str], places: OwnerFolders) -> dict[str, Any]:
    """The declarations of these classes; one that cannot describe itself is left out, and said in the log."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = nodes[name].object_info(places)
        except (EngineError, OSError, ValueError, TypeError) as error:
            LOG.warning("a node class cannot describe itself", extra={"class_type": name, "error": str(error)})
    return found
