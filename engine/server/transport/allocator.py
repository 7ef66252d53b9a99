"""Memory that is free goes back to the machine. Knows nothing of what it held.

glibc keeps what was freed below a block that lives, and has an arena of its own for every thread: after a burst of long
lists and large bodies the process would stay as large as it once was. With another C library nothing happens here.
"""

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncIterator

from aiohttp import web

__all__ = ["give_back", "give_back_regularly", "keep_little"]

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
MAPPED_FROM = 256 * 1024
"""Bytes: a block so large is a mapping of its own, which goes with it. Unset, glibc raises the bound to 32 MiB."""
ARENAS = 2
EVERY_S = 10.0


def keep_little() -> None:
    """Few arenas, and large blocks outside of them; to be called before threads are started."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, ARENAS)
        library.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)


def give_back() -> bool:
    """Let go of every free page; whether there was one."""
    library = ctypes.CDLL(None)
    return hasattr(library, "malloc_trim") and bool(library.malloc_trim(0))


async def give_back_regularly(app: web.Application) -> AsyncIterator[None]:
    """Let go of free pages every few seconds, for as long as the server runs."""
    task = asyncio.create_task(_regularly())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _regularly() -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        await asyncio.to_thread(give_back)  # a millisecond or two, in which others may compute
