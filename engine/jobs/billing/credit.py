"""Credits around a job: held when it is accepted, charged when it succeeds, let go when it does not.

Every function is part of the transaction that moves the job, so a killed server can neither charge twice nor forget.
Every amount is a whole number of millionths of a credit.
"""

from sqlalchemy import insert, select, update

from sigmagraph.engine.errors import InsufficientCredits, SpendLimitReached, UnknownKey
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.tables import accounts, ledger

__all__ = ["hold", "settle"]


def hold(tx: Tx, owner: str, cost: int) -> None:
    """Reserve the cost of a job, or refuse; two jobs at once cannot hold the same credit."""
    if owner == LOCAL or cost == 0:
        return
    limit = accounts.c.spend_limit
    taken = tx.connection.execute(
        update(accounts)
        .where(
            accounts.c.id == owner,
            accounts.c.credits - accounts.c.held >= cost,
            limit.is_(None) | (accounts.c.spent + accounts.c.held + cost <= limit),
        )
        .values(held=accounts.c.held + cost)
    )
    if taken.rowcount:
        return
    row = tx.connection.execute(select(accounts).where(accounts.c.id == owner)).one_or_none()
    if row is None:
        raise UnknownKey(f"there is no account {owner!r}")
    if row.credits - row.held < cost:
        raise InsufficientCredits(row.credits - row.held, cost)
    raise SpendLimitReached(row.spent + row.held, row.spend_limit, cost)


def settle(tx: Tx, owner: str, job_id: str, cost: int, *, is_charged: bool, at: float) -> None:
    """Turn what was held into a charge, or let it go."""
    if owner == LOCAL or cost == 0:
        return
    values = {"held": accounts.c.held - cost}
    if is_charged:
        values |= {"credits": accounts.c.credits - cost, "spent": accounts.c.spent + cost}
        entry = {"account": owner, "at": at, "amount": -cost, "reason": "job", "job_id": job_id}
        tx.connection.execute(insert(ledger).values(entry))
    tx.connection.execute(update(accounts).where(accounts.c.id == owner).values(values))
