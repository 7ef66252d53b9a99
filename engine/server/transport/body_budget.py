"""Memory for the bodies of requests under way: one budget for all, and a share for each key.

A body's first 64 KiB are not counted: orders and logins are read however much large bodies take.
"""

from collections import Counter

from aiohttp import web

from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.context import OWNER
from sigmagraph.engine.server.decoding.pool import Overloaded

__all__ = ["BUDGET", "BodyBudget", "give_all", "hold"]

FREE = 64 * 1024


class BodyBudget:
    """Bytes of bodies that are held, by owner. One owner gets `share`, all together `in_all`."""

    def __init__(self, share: int, in_all: int) -> None:
        self.share, self.in_all = share, in_all
        self.held: Counter[str] = Counter()

    def take(self, owner: str, size: int) -> None:
        """Hold so much more; raises `Overloaded`. Without keys everybody is one owner, who has all of it."""
        if self.held.total() + size > self.in_all:
            raise Overloaded("other requests' bodies fill the memory for them; try again in a moment")
        if owner != LOCAL and self.held[owner] + size > self.share:
            raise Overloaded("bodies of your other requests fill your share of the memory for them")
        self.held[owner] += size

    def give(self, owner: str, size: int) -> None:
        """Hold so much less."""
        self.held[owner] -= size
        if not self.held[owner]:
            del self.held[owner]


BUDGET: web.AppKey[BodyBudget] = web.AppKey("body budget", BodyBudget)
HELD: web.RequestKey[tuple[str, int, int]] = web.RequestKey("held", tuple)
"""The owner at the first byte, the bytes of the request, and those of them that are counted."""


def hold(request: web.Request, size: int) -> None:
    """The request holds so many bytes more of its body, or fewer; raises `Overloaded`."""
    owner, own, counted = request.get(HELD, (request.get(OWNER, ""), 0, 0))
    now = max(0, own + size - FREE)
    budget = request.app[BUDGET]
    if now > counted:
        budget.take(owner, now - counted)
    elif now < counted:
        budget.give(owner, counted - now)
    request[HELD] = owner, own + size, now


def give_all(request: web.Request) -> None:
    """The request is answered."""
    owner, _, counted = request.get(HELD, ("", 0, 0))
    if counted:
        request.app[BUDGET].give(owner, counted)
        del request[HELD]
