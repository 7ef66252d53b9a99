"""What time does to jobs: requests expire, ended jobs are forgotten. Functions of a transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from sigmagraph.engine.errors import IllegalMove
from sigmagraph.engine.jobs.artifacts import Artifact
from sigmagraph.engine.jobs.job import ENDED, State
from sigmagraph.engine.jobs.store import transitions
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.tables import artifacts, idempotency, jobs

__all__ = ["MOST", "expire", "forget", "forget_ended", "forget_files", "forget_old", "old_files"]

MOST = 500
"""So many at a time: the writer serves others in between."""
ENDS = [state.value for state in ENDED]


def expire(tx: Tx, at: float) -> list[str]:
    """End waiting jobs whose time is up."""
    query = select(jobs.c.id).where(jobs.c.state == State.QUEUED.value, jobs.c.expires_at <= at).order_by(jobs.c.seq)
    overdue = list(tx.connection.execute(query.limit(MOST)).scalars())
    for job_id in overdue:
        transitions.end(tx, job_id, State.EXPIRED, at)
    return overdue


def forget_old(tx: Tx, at: float, keep_s: float, keep_jobs: int, idempotency_s: float) -> int:
    """Delete ended jobs past their time or beyond the newest `keep_jobs`, and old idempotency keys; says how many jobs.

    A job's own `keep_s` rules where it has one: somebody was promised that long, however many jobs there are.
    """
    tx.connection.execute(delete(idempotency).where(idempotency.c.at < at - idempotency_s))
    own = jobs.c.keep_s.is_not(None) & (jobs.c.ended_at + jobs.c.keep_s < at)
    general = jobs.c.keep_s.is_(None) & (jobs.c.ended_at < at - keep_s)
    old = select(jobs.c.id).where(jobs.c.state.in_(ENDS), own | general).order_by(jobs.c.ended_at).limit(MOST)
    found = list(tx.connection.execute(old).scalars())
    unbound = jobs.c.state.in_(ENDS), jobs.c.keep_s.is_(None)
    surplus = select(jobs.c.id).where(*unbound).order_by(jobs.c.ended_at.desc(), jobs.c.seq.desc())
    found += tx.connection.execute(surplus.offset(keep_jobs).limit(MOST)).scalars()
    return _delete(tx, found)


def forget(tx: Tx, job_id: str, owner: str | None) -> None:
    """Delete one ended job."""
    job = transitions.the_job(tx, job_id, owner)
    if not job.state.is_end:
        raise IllegalMove(job_id, job.state, "deleted")
    _delete(tx, [job_id])


def forget_ended(tx: Tx, owner: str | None) -> int:
    """Delete all ended jobs."""
    where = [jobs.c.state.in_(ENDS)] + ([jobs.c.owner == owner] if owner is not None else [])
    tx.news.append(("gone", ""))
    return tx.connection.execute(delete(jobs).where(*where)).rowcount


def old_files(connection: Connection, before: float) -> Sequence[tuple[int, Artifact]]:
    """Files made before a moment, with the numbers of their rows."""
    query = select(artifacts).where(artifacts.c.at < before).order_by(artifacts.c.at).limit(MOST)
    return [(row.seq, Artifact(row.owner, row.kind, row.subfolder, row.filename)) for row in connection.execute(query)]


def forget_files(tx: Tx, numbers: Sequence[int]) -> None:
    """Delete rows of files that are gone."""
    tx.connection.execute(delete(artifacts).where(artifacts.c.seq.in_(numbers)))


def _delete(tx: Tx, job_ids: Sequence[str]) -> int:
    """Events and deliveries go with the job; the ledger keeps its entries, and files keep their owner."""
    if not job_ids:
        return 0
    tx.news.append(("gone", ""))
    return tx.connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids))).rowcount
