"""API keys as the server asks for them: the accounts of the job layer, with a short memory."""

import time
from collections.abc import Collection
from typing import Any, Protocol

from sigmagraph.engine.errors import UnknownKey
from sigmagraph.engine.server.auth import Account

__all__ = ["FixedAccount", "FixedKeys", "NoKeys", "StoredKeys"]

REMEMBERED_S = 2.0


class Store(Protocol):
    """What is asked of the accounts."""

    async def authenticate(self, secret: str) -> Any:
        """The account of a key; raises `UnknownKey`."""

    async def were_any(self) -> bool:
        """Whether a key was ever made."""


class StoredKeys:
    """Keys are needed from the first one on, also when all were withdrawn; a new one counts within seconds.

    `is_open`: the operator says that none is needed although there are some.
    """

    def __init__(self, store: Store, *, is_open: bool = False) -> None:
        self._store, self._is_open = store, is_open
        self._is_required = False
        self._asked_at = float("-inf")

    async def identify(self, key: str) -> Account | None:
        """The account of a key, if it is one."""
        try:
            account: Account = await self._store.authenticate(key)
        except UnknownKey:
            return None
        return account

    async def required(self) -> bool:
        """Whether a key was ever made; from then on, always."""
        if self._is_open:
            return False
        if not self._is_required and time.monotonic() - self._asked_at > REMEMBERED_S:
            self._is_required = await self._store.were_any()
            self._asked_at = time.monotonic()
        return self._is_required


class NoKeys:
    """A server that asks for no key: tests, and notebooks."""

    async def identify(self, key: str) -> Account | None:
        """No key is known."""
        del key
        return None

    async def required(self) -> bool:
        """Never."""
        return False


class FixedAccount:
    """An account that is known beforehand."""

    def __init__(self, owner: str, scopes: Collection[str] = frozenset({"read", "submit"})) -> None:
        self.id, self.scopes = owner, scopes
        self.endpoints: Collection[str] | None = None
        self.requests_per_minute: float | None = None


class FixedKeys:
    """Keys given as a table."""

    def __init__(self, accounts: dict[str, FixedAccount]) -> None:
        self._accounts = accounts

    async def identify(self, key: str) -> Account | None:
        """The account of a key, if it is one."""
        return self._accounts.get(key)

    async def required(self) -> bool:
        """Always."""
        return True
