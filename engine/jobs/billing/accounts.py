"""Accounts: keys, what they may do, and their credits. The secret is shown once and kept as a hash.

Holding and charging are part of a job's own transactions (credit.py); here is everything an operator does.
Amounts are whole millionths of a credit, so that no sum is ever rounded.
"""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from sigmagraph.engine.errors import BadValue, UnknownKey
from sigmagraph.engine.jobs.job import LARGEST_COST, LOCAL, is_name
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.jobs.store.single_rows import RowQuery
from sigmagraph.engine.jobs.store.tables import accounts, ledger
from sigmagraph.engine.units import CREDIT

__all__ = ["SCOPES", "Account", "Accounts", "LedgerEntry"]

SCOPES = frozenset({"submit", "read", "admin"})
PREFIX = "SG_"
BYTES = 16
BY_HASH, BY_ID = RowQuery(accounts, "hash"), RowQuery(accounts, "id")
LEAST_RATE, MOST_RATE = 0.001, 1e9


@dataclass(frozen=True, slots=True)
class Account:
    """One key's account. `endpoints` None allows every published workflow; `hint` is the start of the key."""

    id: str
    name: str
    hint: str
    scopes: frozenset[str]
    endpoints: frozenset[str] | None
    credits: int
    held: int
    spent: int
    spend_limit: int | None
    requests_per_minute: float | None
    created_at: float
    revoked_at: float | None

    @property
    def available(self) -> int:
        """What can be spent now."""
        return self.credits - self.held

    def described(self) -> dict[str, Any]:
        """What anybody who runs the server may see, which is all but the key; amounts in credits."""
        return {
            "id": self.id,
            "name": self.name,
            "hint": self.hint,
            "scopes": sorted(self.scopes),
            "endpoints": sorted(self.endpoints) if self.endpoints is not None else None,
            **{name: getattr(self, name) / CREDIT for name in ("credits", "held", "spent")},
            "revoked": self.revoked_at is not None,
        }

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; `admin` has all."""
        return scope in self.scopes or "admin" in self.scopes

    def may_call(self, endpoint: str) -> bool:
        """Whether the key may call a published workflow."""
        return self.endpoints is None or endpoint in self.endpoints


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line of the ledger: a grant is positive, a charge is negative and names its job."""

    at: float
    amount: int
    reason: str
    job_id: str | None


class Accounts:
    """Keys in the store of jobs."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def create(
        self,
        name: str,
        scopes: Collection[str] = ("submit", "read"),
        *,
        endpoints: Collection[str] | None = None,
        credits: int = 0,
        spend_limit: int | None = None,
        requests_per_minute: float | None = None,
    ) -> tuple[str, Account]:
        """A new account and its key: the only time that the key is told."""
        unknown = set(scopes) - SCOPES
        if unknown or not scopes:
            raise BadValue("scopes", sorted(scopes), f"some of {', '.join(sorted(SCOPES))}")
        if not is_name(name):
            raise BadValue("name", name, "a short printable text")
        if not 0 <= credits <= LARGEST_COST:
            raise BadValue("credits", credits, f"0 to {LARGEST_COST}")
        if requests_per_minute is not None and not LEAST_RATE <= requests_per_minute <= MOST_RATE:
            raise BadValue("requests_per_minute", requests_per_minute, f"{LEAST_RATE:g} to {MOST_RATE:g}")
        if spend_limit is not None and not 0 <= spend_limit <= LARGEST_COST:
            raise BadValue("spend_limit", spend_limit, f"0 to {LARGEST_COST}")
        secret = PREFIX + secrets.token_hex(BYTES)
        account_id, at = secrets.token_hex(8), self._store.clock()
        row = {
            "id": account_id,
            "name": name,
            "hash": _hash(secret),
            "hint": secret[: len(PREFIX) + 4],
            "scopes": sorted(scopes),
            "endpoints": sorted(endpoints) if endpoints is not None else None,
            "spend_limit": spend_limit,
            "requests_per_minute": requests_per_minute,
            "created_at": at,
        }

        def work(tx: Tx) -> Account:
            tx.connection.execute(insert(accounts).values(row))
            if credits:
                _grant(tx, account_id, credits, "first credits", at)
            return _one(tx.connection, account_id)

        return secret, await self._store.database.write(work)

    async def authenticate(self, secret: str) -> Account:
        """The account of a key; raises `UnknownKey` for a wrong or revoked one."""
        row = await self._store.database.row(BY_HASH, _hash(secret))
        if row is None:
            raise UnknownKey("this key is not known")
        if row["revoked_at"] is not None:
            raise UnknownKey("this key was revoked")
        return _account(row)

    async def get(self, account_id: str) -> Account:
        """One account; raises `UnknownKey`."""
        return _known(account_id, await self._store.database.row(BY_ID, account_id) if is_name(account_id) else None)

    async def list(self) -> Sequence[Account]:
        """All accounts, revoked ones too, oldest first."""
        query = select(accounts).order_by(accounts.c.created_at, accounts.c.id)
        return await self._store.database.read(
            lambda connection: [_account(dict(row)) for row in connection.execute(query).mappings()]
        )

    async def were_any(self) -> bool:
        """Whether a key was ever made, revoked ones too: withdrawing the last must not open the server to everyone."""
        return await self._store.database.has_any(accounts)

    async def are_any(self) -> bool:
        """Whether any key works: a server that others can reach wants one."""
        return await self._counts(select(func.count()).select_from(accounts).where(accounts.c.revoked_at.is_(None)))

    async def _counts(self, query: Select[Any]) -> bool:
        return bool(await self._store.database.read(lambda connection: connection.execute(query).scalar_one()))

    async def revoke(self, account_id: str) -> Account:
        """The key opens nothing any more; running jobs go on and are charged."""
        at = self._store.clock()

        def work(tx: Tx) -> Account:
            revoked = (accounts.c.id == account_id) & accounts.c.revoked_at.is_(None)
            tx.connection.execute(update(accounts).where(revoked).values(revoked_at=at))
            return _one(tx.connection, account_id)

        return await self._store.database.write(work)

    async def credit(self, account_id: str, amount: int, reason: str = "grant") -> Account:
        """Add credits, or take some away (never below what jobs hold)."""
        _check_amount(amount)
        at = self._store.clock()

        def work(tx: Tx) -> Account:
            before = _one(tx.connection, account_id)
            if before.credits + amount < before.held:
                raise BadValue("amount", amount, f"at least {before.held - before.credits}: running jobs hold the rest")
            _grant(tx, account_id, amount, reason, at)
            return _one(tx.connection, account_id)

        return await self._store.database.write(work)

    async def ledger(self, account_id: str, limit: int = 100) -> Sequence[LedgerEntry]:
        """What happened to the credits, newest first."""
        columns = ledger.c.at, ledger.c.amount, ledger.c.reason, ledger.c.job_id
        query = select(*columns).where(ledger.c.account == account_id).order_by(ledger.c.seq.desc()).limit(limit)
        return await self._store.database.read(
            lambda connection: [LedgerEntry(*row) for row in connection.execute(query)]  # the columns are its fields
        )


def _hash(secret: str) -> str:
    """One round is enough: the key is 128 random bits, not a password."""
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()


def _check_amount(amount: int) -> None:
    if abs(amount) > LARGEST_COST:
        raise BadValue("amount", amount, f"at most {LARGEST_COST}")


def _grant(tx: Tx, account_id: str, amount: int, reason: str, at: float) -> None:
    tx.connection.execute(
        update(accounts).where(accounts.c.id == account_id).values(credits=accounts.c.credits + amount)
    )
    entry = {"account": account_id, "at": at, "amount": amount, "reason": reason}
    tx.connection.execute(insert(ledger).values(entry))


def _one(connection: Connection, account_id: str) -> Account:
    query = select(accounts).where(accounts.c.id == account_id)
    row = connection.execute(query).mappings().one_or_none() if is_name(account_id) else None
    return _known(account_id, None if row is None else dict(row))


def _known(account_id: str, row: dict[str, Any] | None) -> Account:
    if row is None or account_id == LOCAL:
        raise UnknownKey(f"there is no account {account_id!r}")
    return _account(row)


def _account(row: dict[str, Any]) -> Account:
    del row["hash"]
    endpoints = row.pop("endpoints")
    return Account(
        scopes=frozenset(row.pop("scopes")), endpoints=frozenset(endpoints) if endpoints is not None else None, **row
    )
