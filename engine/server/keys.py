"""API keys as the server asks for them: the accounts of the job layer, with a short memory."""

import time
from collections.abc import Collection
from typing import Any, Protocol

from engine.errors import UnknownKey
from engine.server.auth import Account

__all__ = ["FixedAccount", "FixedKeys", "NoKeys", "StoredKeys"]

REMEMBERED_S = 2.0


class Store(Protocol):
    """What is asked of the accounts."""

    async def authenticate(self, secret: str) -> Any:
        """The account of a key; raises `UnknownKey`."""

    async def are_any(self) -> bool:
        """Whether any key is in use."""


class StoredKeys:
    """Keys are needed as soon as there is one; a new or withdrawn key counts within seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
        """Whether there is any account; once there was one, always."""
        if not self._is_required and time.monotonic() - self._asked_at > REMEMBERED_S:
            self._is_required = await self._store.are_any()
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
