"""Every change of a job's state as one function of a transaction: row, events, credits and deliveries move together."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update

from sigmagraph.engine.errors import DuplicateJob, IdempotencyConflict, IllegalMove, UnknownJob
from sigmagraph.engine.jobs.billing import credit
from sigmagraph.engine.jobs.events import Body, Cause, Ended, JobEvent, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import Failure, Idempotency, Job, Outcome, Request, State, Submission, is_name, move
from sigmagraph.engine.jobs.store import log
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.rows import LIGHT, WHOLE, inserted, job_of
from sigmagraph.engine.jobs.store.statements import Statement
from sigmagraph.engine.jobs.store.tables import deliveries, idempotency, jobs
from sigmagraph.engine.jobs.workers.crash_loop import losses, strikes_after

__all__ = [
    "begin",
    "begun",
    "begun_at_once",
    "create",
    "end",
    "find_repeat",
    "lose",
    "place",
    "request_cancel",
    "the_job",
]


def _held(columns: Sequence[ColumnElement[Any]]) -> Statement:
    """These columns of one job, which nobody else changes until the transaction is over."""
    return Statement(select(*columns).where(jobs.c.id == bindparam("job")).with_for_update(), columns)


SELECT_LIGHT, SELECT_WHOLE, SELECT_DEBTS = _held(LIGHT), _held(WHOLE), _held([*LIGHT, jobs.c.webhook, jobs.c.deaths])
SELECT_TAKEN = Statement(select(jobs.c.seq).where(jobs.c.id == bindparam("job")), [jobs.c.seq])
LAST = func.max(jobs.c.seq).label("last")
SELECT_LAST = Statement(select(LAST), [LAST])
SELECT_FIRST = select(func.min(jobs.c.number)).where(
    jobs.c.state == State.QUEUED.value, jobs.c.owner == bindparam("owner")
)
RANK = float(2**40)
"""What a place in an owner's own order is worth in numbers: more than there will be jobs."""
INSERT_JOB = Statement(insert(jobs), given=[column.name for column in jobs.c if column.name != "seq"])
MOST_LOSSES = 50  # a job under which so many workers died fails, whoever is to blame


def the_job(tx: Tx, job_id: str, owner: str | None = None) -> Job:
    """The job, held against every other transaction until this one is over; raises `UnknownJob`."""
    return job_of(_row(tx, SELECT_LIGHT, job_id, owner))


def _row(tx: Tx, query: Statement, job_id: str, owner: str | None = None) -> Mapping[str, Any]:
    row = query.row(tx.connection, {"job": job_id}) if is_name(job_id) else None
    if row is None or (owner is not None and row["owner"] != owner):
        raise UnknownJob(job_id)
    return row


def find_repeat(tx: Tx, owner: str, key: Idempotency, since: float) -> Job | None:
    """The job an equal request made before; raises `IdempotencyConflict` if the request was another."""
    if tx.connection.dialect.name == "postgresql":  # another server may be about to remember the same key
        tx.connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{owner} {key.key}", 0))))
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


def create(tx: Tx, submission: Submission, request: Request, at: float, worker: str | None = None) -> Job:
    """Accept a job: refuse an id that is taken, hold the cost, write the row; begun at once where a worker is free."""
    if SELECT_TAKEN.row(tx.connection, {"job": submission.job_id}) is not None:
        raise DuplicateJob(submission.job_id)
    credit.hold(tx, submission.owner, submission.cost)
    number = submission.number
    if number is None:
        number = _number(tx, submission.owner, submission.front) - submission.own_priority * RANK
    row = inserted(submission, request, number, at)
    job = job_of(row | {"request": None})
    said = [JobEvent(job.id, job.owner, job.events, at, Queued(number))]
    if worker is not None:
        early = begun_at_once(job, worker)
        row |= {name: getattr(early, name) for name in ("attempt", "started_at", "worker", "events")}
        row["state"] = early.state.value
        said.append(JobEvent(job.id, job.owner, early.events, at, Started(early.attempt, worker)))
    INSERT_JOB.rows(tx.connection, row)
    if submission.idempotency is not None:
        _remember(tx, submission.owner, submission.idempotency, submission.job_id, at)
    log.keep(tx, said)
    return job


def begun_at_once(job: Job, worker: str) -> Job:
    """A job just accepted, as the row of one that need not wait says it: its first attempt begins where it was made."""
    return begun(job, worker, job.created_at)


def begin(tx: Tx, job_id: str, worker: str, at: float, *, is_known: bool = False) -> Job:
    """The next attempt starts; the job with its request, unless that is known."""
    job = begun(job_of(_row(tx, SELECT_LIGHT if is_known else SELECT_WHOLE, job_id)), worker, at)
    values = {"state": job.state.value, "attempt": job.attempt, "started_at": at, "worker": worker}
    return replace(job, events=log.append(tx, job_id, [Started(job.attempt, worker)], at, **values))


def begun(job: Job, worker: str, at: float) -> Job:
    """A waiting job as its row says it once the next attempt has begun."""
    state = move(job.id, job.state, State.RUNNING)
    return replace(job, state=state, attempt=job.attempt + 1, started_at=at, worker=worker, events=job.events + 1)


def end(
    tx: Tx,
    job_id: str,
    to: State,
    at: float,
    *,
    failure: Failure | None = None,
    outcome: Outcome | None = None,
    tail: Sequence[Body] = (),
    said: Sequence[tuple[float, Body]] = (),
    attempt: int | None = None,
) -> Job:
    """The end: state, last events (`said` with their times, `tail` now), charge and webhook in one.

    `attempt` says whose end it is: see `_held_by`.
    """
    row = _row(tx, SELECT_DEBTS, job_id)
    job = _held_by(attempt, job_of(row))
    state = move(job_id, job.state, to)
    credit.settle(tx, job.owner, job_id, job.cost, is_charged=state is State.SUCCEEDED, at=at)
    values: dict[str, Any] = {"state": state.value, "ended_at": at}
    values["failure"] = asdict(failure) if failure is not None else None
    values["outcome"] = {"outputs": outcome.outputs, "nodes": outcome.nodes} if outcome is not None else None
    last = log.append_all(tx, job_id, [*said, *((at, body) for body in (*tail, Ended(state, failure)))], **values)
    if row["webhook"] is not None:
        _owe_delivery(tx, job_id, row["webhook"], at)
    ended = replace(job, state=state, ended_at=at, failure=failure, outcome=outcome, events=last)
    tx.ended.append(ended)
    return ended


def lose(
    tx: Tx,
    job_id: str,
    reason: str,
    at: float,
    cause: Cause,
    max_deaths: int,
    attempt: int | None = None,
    failure: Failure | None = None,
) -> Job:
    """The attempt is lost: the job waits for the next one, unless it was to stop or has cost too many workers in vain.

    `failure` is what it then fails with, and where. Which of the deaths that may be the job's doing count: see
    crash_loop.py. A server's own never count.
    """
    row = _row(tx, SELECT_DEBTS, job_id)
    job = _held_by(attempt, job_of(row))
    if job.cancel_requested:
        return end(tx, job_id, State.CANCELLED, at)
    deaths = strikes_after(tx, job_id, row["deaths"], at) if cause is Cause.JOB else row["deaths"]
    if cause is not Cause.SERVER and (deaths >= max_deaths or losses(tx, job_id) + 1 >= MOST_LOSSES):
        why = failure or Failure("worker_lost", reason)
        why = replace(why, message=f"gave up after {job.attempt} attempts: {why.message}")
        return end(tx, job_id, State.FAILED, at, failure=why)
    state = move(job_id, job.state, State.QUEUED)
    values = {"state": state.value, "worker": "", "deaths": deaths}
    last = log.append(tx, job_id, [Requeued(job.attempt, reason, cause)], at, **values)
    return replace(job, state=state, worker="", events=last)


def _held_by(attempt: int | None, job: Job) -> Job:
    """The job, where this attempt still has it: the number of the latest attempt is the lease on a job.

    A worker that was silent and given up, and comes back, moves nothing any more. None asks nothing.
    """
    if attempt is not None and (job.attempt != attempt or job.state is not State.RUNNING):
        raise IllegalMove(job.id, job.state, f"moved by attempt {attempt}: attempt {job.attempt} is the latest")
    return job


def request_cancel(tx: Tx, job_id: str, owner: str | None, at: float) -> Job:
    """A queued job ends, a running one is marked (a killed server will not run it again), an ended one stays."""
    job = the_job(tx, job_id, owner)
    if job.state is State.QUEUED:
        return end(tx, job_id, State.CANCELLED, at)
    if job.state is State.RUNNING:
        _update(tx, job_id, {"cancel_requested": True})
        tx.news.append(("job", job_id))
        return replace(job, cancel_requested=True)
    return job


def place(tx: Tx, job_id: str, owner: str | None, number: float | None, front: bool, priority: int | None) -> Job:
    """Another place in the queue."""
    job = the_job(tx, job_id, owner)
    move(job_id, job.state, State.RUNNING)  # only what could start can be moved
    number = _number(tx, job.owner, True) if front else job.number if number is None else number
    priority = job.priority if priority is None else priority
    _update(tx, job_id, {"number": number, "priority": priority})
    tx.news.append(("job", job_id))
    return replace(job, number=number, priority=priority)


def _update(tx: Tx, job_id: str, values: dict[str, Any]) -> None:
    tx.connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def _number(tx: Tx, owner: str, front: bool) -> float:
    """The running counter; negative, and before everything of this owner's that waits, for the front."""
    last = SELECT_LAST.row(tx.connection, {})
    counter = float(((last or {}).get("last") or 0) + 1)
    if not front:
        return counter
    first: float = tx.connection.execute(SELECT_FIRST, {"owner": owner}).scalar_one() or 0.0
    before = min(first - 1, math.nextafter(first, -math.inf))  # beyond 2**53 one less is the same number
    return min(-counter, before)


def _remember(tx: Tx, owner: str, key: Idempotency, job_id: str, at: float) -> None:
    tx.connection.execute(delete(idempotency).where(idempotency.c.owner == owner, idempotency.c.key == key.key))
    row = {"owner": owner, "key": key.key, "digest": key.digest, "job_id": job_id, "at": at}
    tx.connection.execute(insert(idempotency).values(row))


def _owe_delivery(tx: Tx, job_id: str, webhook: Mapping[str, Any], at: float) -> None:
    row = {"id": str(uuid.uuid4()), "job_id": job_id, "next_at": at, "log": [], **webhook}
    tx.connection.execute(insert(deliveries).values(row))
