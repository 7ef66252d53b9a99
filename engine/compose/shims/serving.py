"""`server`: what packs say to the page. Nodes run in a worker: there is no page here, and no routes are served.

Routes a pack registers are kept. They are served where the operator wants it (`pack_routes.py`), and else by nobody.
Messages are logged.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from enum import IntEnum
from types import FrameType, SimpleNamespace
from typing import Any

from aiohttp import web

__all__ = ["PromptServer", "names"]

LOG = logging.getLogger("sigmagraph.packs")
LARGEST = 64 * 1024 * 1024
"""Bytes of a body; the front lets fewer through."""


class BinaryEventTypes(IntEnum):
    """Kinds of binary messages to the page."""

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4


class Routes(web.RouteTableDef):
    """A table of routes that knows which pack each is of."""

    def __init__(self) -> None:
        super().__init__()
        self.packs: dict[int, str] = {}

    def route(self, method: str, path: str, **kwargs: Any) -> Callable[[Any], Any]:
        """A decorator for a handler."""
        register, pack = super().route(method, path, **kwargs), _asking_pack()

        def kept(handler: Any) -> Any:
            made = register(handler)
            self.packs[id(self[-1])] = pack
            return made

        return kept


def _asking_pack() -> str:
    """The pack whose code asks; empty where it is nobody's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("custom_nodes."):
            return name.split(".")[1]
        frame = frame.f_back
    return ""


class PromptServer:
    """The server as packs see it; `instance` is the one there is."""

    instance: "PromptServer"

    def __init__(self) -> None:
        self.routes = Routes()
        self.app = web.Application(client_max_size=LARGEST)
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.supports = ["custom_nodes_from_web"]  # scripts are found by WEB_DIRECTORY; nothing is to be copied
        self.sockets: dict[str, Any] = {}
        self.address, self.port = "127.0.0.1", 8188
        self.prompt_queue = SimpleNamespace(currently_running={}, queue=[], history={})
        self.on_prompt_handlers: list[Callable[[Any], Any]] = []
        self.number = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """A message to the page: it is logged, because there is no page at a worker."""
        LOG.debug("a pack said %s: %.200r", event, data)

    async def send(self, event: Any, data: Any, sid: str | None = None) -> None:
        """The same for asynchronous code."""
        self.send_sync(event, data, sid)

    async def send_json(self, event: Any, data: Any, sid: str | None = None) -> None:
        """The same for asynchronous code."""
        self.send_sync(event, data, sid)

    def send_progress_text(self, text: Any, node_id: str, sid: str | None = None) -> None:
        """A line of text at a node."""
        self.send_sync("progress_text", {"text": str(text), "node": node_id}, sid)

    def queue_updated(self) -> None:
        """Nobody is told: the queue is the front's."""

    def add_on_prompt_handler(self, handler: Callable[[Any], Any]) -> None:
        """Kept and never called: workflows are accepted by the front, which runs no code of packs."""
        self.on_prompt_handlers.append(handler)

    def add_routes(self) -> None:
        """Nothing: whoever starts the worker adds them."""


PromptServer.instance = PromptServer()
PromptServer.__module__ = "server"  # packs ask for the file of this class, and make folders beside it


def names() -> dict[str, dict[str, Any]]:
    """The module."""
    return {"server": {"PromptServer": PromptServer, "BinaryEventTypes": BinaryEventTypes, "web": web}}
