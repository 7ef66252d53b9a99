"""Room for the bodies of requests under way, in memory and (forms) on disk: one budget for all, a share for each key.

A body's first 64 KiB are not counted: orders and logins are read however much large bodies take.
"""

from collections import Counter

from aiohttp import web

from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.context import OWNER
from sigmagraph.engine.server.decoding.pool import Overloaded

__all__ = ["BUDGET", "FORMS", "FORMS_AT_ONCE", "FORMS_EACH", "BodyBudget", "give_all", "hold", "hold_form"]

FREE = 64 * 1024
FORMS_EACH, FORMS_AT_ONCE = 8, 32
"""Forms of the largest size whose files may wait on disk: of one key, and of all."""


class BodyBudget:
    """Bytes of bodies that are held, by owner. One owner gets `share`, all together `in_all`."""

    def __init__(self, share: int, in_all: int, place: str = "the memory") -> None:
        self.share, self.in_all, self.place = share, in_all, place
        self.held: Counter[str] = Counter()

    def take(self, owner: str, size: int) -> None:
        """Hold so much more; raises `Overloaded`. Without keys everybody is one owner, who has all of it."""
        if self.held.total() + size > self.in_all:
            raise Overloaded(f"other requests' bodies fill {self.place} for them; try again in a moment")
        if owner != LOCAL and self.held[owner] + size > self.share:
            raise Overloaded(f"bodies of your other requests fill your share of {self.place} for them")
        self.held[owner] += size

    def give(self, owner: str, size: int) -> None:
        """Hold so much less."""
        self.held[owner] -= size
        if not self.held[owner]:
            del self.held[owner]


BUDGET: web.AppKey[BodyBudget] = web.AppKey("body budget", BodyBudget)
FORMS: web.AppKey[BodyBudget] = web.AppKey("forms", BodyBudget)
FORM: web.RequestKey[tuple[str, int]] = web.RequestKey("form", tuple)
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


def hold_form(request: web.Request) -> None:
    """Files of a form wait on disk: as many bytes as it says it has, or the most there may be; raises `Overloaded`."""
    owner, size = request.get(OWNER, ""), request.content_length or request.client_max_size
    request.app[FORMS].take(owner, size)
    request[FORM] = owner, size


def give_all(request: web.Request) -> None:
    """The request is answered."""
    owner, _, counted = request.get(HELD, ("", 0, 0))
    if counted:
        request.app[BUDGET].give(owner, counted)
        del request[HELD]
    if FORM in request:
        request.app[FORMS].give(*request[FORM])
        del request[FORM]
