"""An answer of another process, handed on piece by piece: to few at a time, and not to who does not read it.

An answer that breaks off breaks off for its reader too: the connection is reset, so that no half of a file looks whole.
"""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aiohttp import ClientError, ClientResponse, web

from sigmagraph.engine.server.decoding.pool import Overloaded

__all__ = ["RelayPlaces", "relayed"]

LOG = logging.getLogger("sigmagraph.http")
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing sends a reset, which no client takes for an end."""


class RelayPlaces:
    """`most` answers at a time, `each` of them for one owner; who finds none is refused at once."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._held: Counter[str] = Counter()

    def refuse_when_full(self, owner: str) -> None:
        """Raises `Overloaded` where a request of this owner would find no place."""
        if self._held.total() >= self._most:
            raise Overloaded(f"{self._most} requests are being handed on already, which is all at a time")
        if self._held[owner] >= self._each:
            raise Overloaded(f"{self._each} of your requests are being handed on already, which is your share")

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Have a place, or raise `Overloaded`."""
        self.refuse_when_full(owner)
        self._held[owner] += 1
        try:
            yield
        finally:
            self._held[owner] -= 1
            self._held += Counter()  # without zeros


async def relayed(
    request: web.Request, answer: ClientResponse, headers: Mapping[str, str], write_s: float
) -> web.StreamResponse:
    """Hand the answer on. A reader who takes nothing for `write_s` seconds is cut off; so is one of a broken answer."""
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    chunks = answer.content.iter_any()
    try:
        while (chunk := await anext(chunks, None)) is not None:
            if not await _written(request, response, chunk, write_s):
                return response
    except (ClientError, TimeoutError) as error:
        _cut_off(request, f"the answer broke off: {str(error) or type(error).__name__}")
        return response
    await _written(request, response, None, write_s)
    return response


async def _written(request: web.Request, response: web.StreamResponse, chunk: bytes | None, write_s: float) -> bool:
    """Whether the reader took this piece, or the end (None), in time; one that went away did not."""
    try:
        async with asyncio.timeout(write_s):
            await (response.write_eof() if chunk is None else response.write(chunk))
    except TimeoutError:
        _cut_off(request, f"the reader took nothing for {write_s:g} s")
        return False
    except ConnectionResetError:  # it went away; there is nobody to tell
        return False
    return True


def _cut_off(request: web.Request, reason: str) -> None:
    """Reset the connection, with one line in the log."""
    LOG.warning("an answer was not handed on to its end", extra={"path": request.path, "reason": reason})
    if request.transport is None:
        return
    connection = request.transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    request.transport.abort()
