"""Every change of a job's state as one function of a transaction: row, events, credits and deliveries move together."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update

from engine.errors import DuplicateJob, IdempotencyConflict, UnknownJob
from engine.jobs import credit, log
from engine.jobs.database import Tx
from engine.jobs.events import Body, Ended, Queued, Requeued, Started
from engine.jobs.job import Failure, Idempotency, Job, Outcome, Request, State, Submission, move
from engine.jobs.rows import LIGHT, WHOLE, inserted, job_of
from engine.jobs.tables import deliveries, facts, idempotency, jobs

__all__ = ["begin", "cancel", "create", "end", "find_repeat", "lose", "place", "the_job"]

COUNTER = "counter"


def the_job(tx: Tx, job_id: str, owner: str | None = None, columns: Sequence[ColumnElement[Any]] = LIGHT) -> Job:
    """The job, held against every other transaction until this one is over; raises `UnknownJob`."""
    query = select(*columns).where(jobs.c.id == job_id).with_for_update()
    row = tx.connection.execute(query).mappings().one_or_none()
    if row is None or (owner is not None and row["owner"] != owner):
        raise UnknownJob(job_id)
    return job_of(row)  # type: ignore[arg-type]  # RowMapping is a Mapping of str in all we select


def find_repeat(tx: Tx, owner: str, key: Idempotency, since: float) -> Job | None:
    """The job an equal request made before; raises `IdempotencyConflict` if the request was another."""
    query = select(idempotency).where(idempotency.c.owner == owner, idempotency.c.key == key.key)
    row = tx.connection.execute(query).one_or_none()
    if row is None or row.at < since:
        return None
    if row.digest != key.digest:
        raise IdempotencyConflict(key.key, row.job_id)
    try:
        return the_job(tx, row.job_id)
    except UnknownJob:  # deleted since
        return None


def create(tx: Tx, submission: Submission, request: Request, at: float) -> Job:
    """Accept a job: refuse an id that is taken, hold the cost, write the row."""
    is_taken = tx.connection.execute(select(jobs.c.seq).where(jobs.c.id == submission.job_id)).first()
    if is_taken is not None:
        raise DuplicateJob(submission.job_id)
    credit.hold(tx, submission.owner, submission.cost)
    number = submission.number if submission.number is not None else _count(tx) * (-1.0 if submission.front else 1.0)
    tx.connection.execute(insert(jobs).values(inserted(submission, request, number, at)))
    if submission.idempotency is not None:
        _remember(tx, submission.owner, submission.idempotency, submission.job_id, at)
    log.append(tx, submission.job_id, [Queued(number)], at)
    return the_job(tx, submission.job_id)


def begin(tx: Tx, job_id: str, worker: str, at: float) -> Job:
    """The next attempt starts."""
    job = the_job(tx, job_id)
    state = move(job_id, job.state, State.RUNNING)
    values = {"state": state.value, "attempt": job.attempt + 1, "started_at": at, "worker": worker}
    _update(tx, job_id, values)
    log.append(tx, job_id, [Started(job.attempt + 1, worker)], at)
    return the_job(tx, job_id, columns=WHOLE)


def end(
    tx: Tx,
    job_id: str,
    to: State,
    at: float,
    *,
    failure: Failure | None = None,
    outcome: Outcome | None = None,
    tail: Sequence[Body] = (),
) -> Job:
    """The end: state, last events, charge and webhook in one."""
    job = the_job(tx, job_id)
    state = move(job_id, job.state, to)
    values: dict[str, Any] = {"state": state.value, "ended_at": at}
    values["failure"] = asdict(failure) if failure is not None else None
    values["outcome"] = asdict(outcome) if outcome is not None else None
    _update(tx, job_id, values)
    credit.settle(tx, job.owner, job_id, job.cost, is_charged=state is State.SUCCEEDED, at=at)
    log.append(tx, job_id, [*tail, Ended(state, failure)], at)
    _owe_delivery(tx, job_id, at)
    return the_job(tx, job_id)


def lose(tx: Tx, job_id: str, reason: str, at: float, *, max_deaths: int | None) -> Job:
    """The attempt is lost: the job waits for the next one, unless it was to stop or has cost too many workers.

    `max_deaths` None: the worker is not to blame (the server stopped).
    """
    job = the_job(tx, job_id)
    if job.cancel_requested:
        return end(tx, job_id, State.CANCELLED, at)
    deaths = tx.connection.execute(select(jobs.c.deaths).where(jobs.c.id == job_id)).scalar_one()
    deaths += 1 if max_deaths is not None else 0
    _update(tx, job_id, {"deaths": deaths})
    if max_deaths is not None and deaths >= max_deaths:
        message = f"gave up after {job.attempt} attempts: {reason}"
        return end(tx, job_id, State.FAILED, at, failure=Failure("worker_lost", message))
    state = move(job_id, job.state, State.QUEUED)
    _update(tx, job_id, {"state": state.value, "worker": ""})
    log.append(tx, job_id, [Requeued(job.attempt, reason)], at)
    return the_job(tx, job_id)


def cancel(tx: Tx, job_id: str, owner: str | None, at: float) -> Job:
    """A queued job ends, a running one is marked (a killed server will not run it again), an ended one stays."""
    job = the_job(tx, job_id, owner)
    if job.state is State.QUEUED:
        return end(tx, job_id, State.CANCELLED, at)
    if job.state is State.RUNNING:
        _update(tx, job_id, {"cancel_requested": True})
        return the_job(tx, job_id)
    return job


def place(tx: Tx, job_id: str, owner: str | None, number: float | None, front: bool, priority: int | None) -> Job:
    """Another place in the queue."""
    job = the_job(tx, job_id, owner)
    move(job_id, job.state, State.RUNNING)  # only what could start can be moved
    if front:
        number = -_count(tx)
    values = {"number": number, "priority": priority}
    given = {name: value for name, value in values.items() if value is not None}
    if given:
        _update(tx, job_id, given)
    return the_job(tx, job_id)


def _update(tx: Tx, job_id: str, values: dict[str, Any]) -> None:
    tx.connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def _count(tx: Tx) -> float:
    """The next counter number; counts on across restarts."""
    now = tx.connection.execute(
        select(facts.c.value).where(facts.c.name == COUNTER).with_for_update()
    ).scalar_one_or_none()
    if now is None:
        tx.connection.execute(insert(facts).values(name=COUNTER, value=1))
        return 1.0
    tx.connection.execute(update(facts).where(facts.c.name == COUNTER).values(value=now + 1))
    return float(now + 1)


def _remember(tx: Tx, owner: str, key: Idempotency, job_id: str, at: float) -> None:
    tx.connection.execute(delete(idempotency).where(idempotency.c.owner == owner, idempotency.c.key == key.key))
    row = {"owner": owner, "key": key.key, "digest": key.digest, "job_id": job_id, "at": at}
    tx.connection.execute(insert(idempotency).values(row))


def _owe_delivery(tx: Tx, job_id: str, at: float) -> None:
    webhook = tx.connection.execute(select(jobs.c.webhook).where(jobs.c.id == job_id)).scalar_one()
    if webhook is not None:
        row = {"id": str(uuid.uuid4()), "job_id": job_id, "next_at": at, "log": [], **webhook}
        tx.connection.execute(insert(deliveries).values(row))
