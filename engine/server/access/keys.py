"""API keys as the server asks for them, every adapter alike: the accounts of the job layer, with a short memory."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sigmagraph.engine.errors import UnknownKey
from sigmagraph.engine.jobs.billing.accounts import Account, Accounts

__all__ = ["KnownKeys", "StoredKeys"]

REMEMBERED_S = 0.05
"""Short beside the time from a first key to a page that somebody opens; still at most 20 questions a second."""


class KnownKeys(Protocol):
    """The keys there are."""

    async def identify(self, key: str) -> Account | None:
        """The account of a key, as it is now; None for a key that is unknown or withdrawn."""

    async def standing(self, owner: str) -> Account | None:
        """The account of an owner, as it is now; None for an owner without one, or one that was withdrawn."""

    async def required(self) -> bool:
        """Whether requests need a key: as soon as there is one."""

    async def listed(self) -> Sequence[Account]:
        """Every account, withdrawn ones too."""


class StoredKeys:
    """Keys are needed from the first one on, also when all were withdrawn; a new one counts at once.

    Accounts are read anew each time: a balance that is shown is never an old one. `is_open`: the operator says that no
    key is needed although there are some.
    """

    def __init__(
        self, accounts: Accounts, *, is_open: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounts, self._is_open, self._clock = accounts, is_open, clock
        self._is_required = False
        self._asked_at = float("-inf")

    async def identify(self, key: str) -> Account | None:
        """The account of a key that works."""
        try:
            return await self._accounts.authenticate(key)
        except UnknownKey:
            return None

    async def standing(self, owner: str) -> Account | None:
        """The account, unless it was withdrawn."""
        try:
            account = await self._accounts.get(owner)
        except UnknownKey:
            return None
        return account if account.revoked_at is None else None

    async def required(self) -> bool:
        """Whether a key was ever made; from then on, always."""
        if self._is_open:
            return False
        now = self._clock()
        if not self._is_required and now - self._asked_at > REMEMBERED_S:
            self._is_required = await self._accounts.were_any()
            self._asked_at = now  # when it was asked: an answer that took long is as old as its question
        return self._is_required

    async def listed(self) -> Sequence[Account]:
        """Every account, the oldest first."""
        return await self._accounts.list()
