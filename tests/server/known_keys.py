"""Keys that are known beforehand, where a test needs no store of them."""

from collections.abc import Collection, Mapping, Sequence

from sigmagraph.engine.jobs.billing.accounts import Account

__all__ = ["FixedKeys", "NoKeys", "account"]

USUAL = frozenset({"read", "submit"})


def account(owner: str, scopes: Collection[str] = USUAL, requests_per_minute: float | None = None) -> Account:
    """An account without credits."""
    return Account(owner, owner, "SG_", frozenset(scopes), None, 0, 0, 0, None, requests_per_minute, 0.0, None)


class FixedKeys:
    """Keys given as a table."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts

    async def identify(self, key: str) -> Account | None:
        return self._accounts.get(key)

    async def standing(self, owner: str) -> Account | None:
        return next((known for known in self._accounts.values() if known.id == owner), None)

    async def required(self) -> bool:
        return True

    async def listed(self) -> Sequence[Account]:
        return list(self._accounts.values())


class NoKeys(FixedKeys):
    """A server that asks for no key."""

    def __init__(self) -> None:
        super().__init__({})

    async def required(self) -> bool:
        return False
