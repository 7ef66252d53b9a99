"""What costs others something, taken in turns: one at a time for each owner, and who used least of late goes first."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sigmagraph.engine.server.decoding.pool import Overloaded
from sigmagraph.engine.server.decoding.shares import Shares, Turn

__all__ = ["turn_of"]


@asynccontextmanager
async def turn_of(
    shares: Shares, owner: str, what: str, most_waiting: int, wait_s: float = 30.0
) -> AsyncIterator[None]:
    """Wait for the owner's turn, at most `wait_s` seconds; the time that is used is charged to it.

    Raises `Overloaded` where `most_waiting` of the owner wait already, or the turn does not come.
    """
    if shares.waiting(owner) >= most_waiting:
        raise Overloaded(f"{most_waiting} of your {what} wait already: try again soon")
    turn = shares.queue(owner)
    try:
        await _until_ready(turn, what, wait_s)
        began = time.monotonic()
        try:
            yield
        finally:
            shares.charge(owner, time.monotonic() - began)
    finally:
        shares.leave(turn)


async def _until_ready(turn: Turn, what: str, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await turn.ready.wait()
    except TimeoutError as error:
        raise Overloaded(f"other {what} are under way: try again soon") from error
