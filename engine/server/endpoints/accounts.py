"""What this adapter asks about keys: who is calling, what they may call, and what is left of their credits."""

from collections.abc import Collection
from typing import Protocol

from sigmagraph.engine.errors import UnknownKey

__all__ = ["Accounts", "Standing", "StoredAccounts"]


class Standing(Protocol):
    """An account as it is now. `held` is what running jobs have reserved; `endpoints` None means every endpoint."""

    @property
    def id(self) -> str:
        """The owner of everything made with the key."""

    @property
    def name(self) -> str:
        """What the operator calls it."""

    @property
    def scopes(self) -> Collection[str]:
        """`read`, `submit`, `admin`."""

    @property
    def endpoints(self) -> Collection[str] | None:
        """The slugs it may call; None: all."""

    @property
    def credits(self) -> int:
        """The balance, what is held included."""

    @property
    def held(self) -> int:
        """Reserved by jobs that have not ended."""

    @property
    def requests_per_minute(self) -> float | None:
        """Its own rate limit; None: the server's."""


class Accounts(Protocol):
    """The keys and accounts there are."""

    async def identify(self, key: str) -> Standing | None:
        """The account of a key, or None for a key that is unknown or withdrawn."""

    async def standing(self, owner: str) -> Standing | None:
        """An account as it is at this moment; None for an owner without one, or one that was withdrawn."""

    async def required(self) -> bool:
        """Whether requests need a key: as soon as there is one."""


class Store(Protocol):
    """What is asked of the accounts of the job layer."""

    async def authenticate(self, secret: str) -> "Kept":
        """The account of a key; raises `UnknownKey`."""

    async def get(self, account_id: str) -> "Kept":
        """One account; raises `UnknownKey`."""


class Kept(Standing, Protocol):
    """An account as the store has it."""

    @property
    def revoked_at(self) -> float | None:
        """When it was withdrawn."""


class Required(Protocol):
    """Whether keys are in use at all."""

    async def required(self) -> bool:
        """Whether requests need a key."""


class StoredAccounts:
    """The accounts of the job layer, read anew each time: a balance that is shown is never an old one."""

    def __init__(self, store: Store, keys: Required) -> None:
        self._store, self._keys = store, keys

    async def identify(self, key: str) -> Standing | None:
        """The account of a key that works."""
        try:
            return await self._store.authenticate(key)
        except UnknownKey:
            return None

    async def standing(self, owner: str) -> Standing | None:
        """The account as it is now, unless it was withdrawn."""
        try:
            account = await self._store.get(owner)
        except UnknownKey:
            return None
        return account if account.revoked_at is None else None

    async def required(self) -> bool:
        """Whether requests need a key."""
        return await self._keys.required()
