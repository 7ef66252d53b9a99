"""What handlers ask of the decoders, for the owner of the request."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import web

from sigmagraph.engine.execution.replay import PictureComparison
from sigmagraph.engine.server.context import OWNER
from sigmagraph.engine.server.decoding.pool import DECODERS

__all__ = ["compared", "made_of"]


async def made_of(
    request: web.Request, operation: str, sources: Sequence[Path | bytes] = (), **options: Any
) -> BinaryIO:
    """The picture an operation makes; a body of a reply as it is. Raises `UnreadableImage` and `Overloaded`."""
    _, made = await request.app[DECODERS].make(
        request.get(OWNER, ""), operation, sources, is_wanted=lambda: _is_there(request), **options
    )
    return made


async def compared(request: web.Request, one: Path, other: Path) -> PictureComparison:
    """The figures for two picture files."""
    figures, _ = await request.app[DECODERS].make(request[OWNER], "compare", (one, other))
    return PictureComparison(**figures)


def _is_there(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()
