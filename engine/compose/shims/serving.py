"""`server`: what packs say to the page. Nodes run in a worker: there is no page here, and no routes are served.

Routes a pack registers are kept, and served by nobody; messages are logged. Nothing a pack registers here is reachable
from outside.
"""

import logging
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from aiohttp import web

__all__ = ["PromptServer", "names"]

LOG = logging.getLogger("sigmagraph.packs")


class BinaryEventTypes(IntEnum):
    """Kinds of binary messages to the page."""

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4


class PromptServer:
    """The server as packs see it; `instance` is the one there is."""

    instance: "PromptServer"

    def __init__(self) -> None:
        self.routes = web.RouteTableDef()
        self.app = web.Application()
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.supports = ["custom_nodes_from_web"]  # scripts are found by WEB_DIRECTORY; nothing is to be copied
        self.sockets: dict[str, Any] = {}
        self.address, self.port = "127.0.0.1", 8188
        self.prompt_queue = SimpleNamespace(currently_running={}, queue=[], history={})
        self.on_prompt_handlers: list[Callable[[Any], Any]] = []
        self.number = 0
        self.loop = None

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
        """Nothing: routes of packs are not served."""


PromptServer.instance = PromptServer()
PromptServer.__module__ = "server"  # packs ask for the file of this class, and make folders beside it


def names() -> dict[str, dict[str, Any]]:
    """The module."""
    return {"server": {"PromptServer": PromptServer, "BinaryEventTypes": BinaryEventTypes, "web": web}}
