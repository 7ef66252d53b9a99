"""A lock for each owner: one's changes come one after another, and nobody waits for another's."""

import asyncio
from weakref import WeakValueDictionary

from aiohttp import web

from sigmagraph.engine.server.context import OWNER

__all__ = ["LOCKS", "OwnerLocks", "own_lock"]


class OwnerLocks:
    """The locks that somebody holds or waits for; others are made when asked for."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, owner: str) -> asyncio.Lock:
        """The owner's lock: the same for as long as anybody has it."""
        lock = self._locks.get(owner)
        if lock is None:
            lock = self._locks[owner] = asyncio.Lock()
        return lock


LOCKS: web.AppKey[OwnerLocks] = web.AppKey("owner locks", OwnerLocks)


def own_lock(request: web.Request) -> asyncio.Lock:
    """The lock of the request's owner, for what is read, changed and written again."""
    return request.app[LOCKS].of(request[OWNER])
