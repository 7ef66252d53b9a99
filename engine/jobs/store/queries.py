"""Reading many jobs: pages, what waits, what is old. Functions of a connection; nothing here changes a row."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select

from sigmagraph.engine.errors import BadValue, UnknownJob
from sigmagraph.engine.jobs.job import ENDED, Job, JobQuery, Page, Request, State, is_name
from sigmagraph.engine.jobs.store.rows import LIGHT, WHOLE, job_of
from sigmagraph.engine.jobs.store.searching import length, says, within
from sigmagraph.engine.jobs.store.tables import jobs

__all__ = ["by_state", "get", "ids", "light", "owing", "page", "requests"]

ORDERS: dict[str, ColumnElement[Any]] = {
    "created_at": jobs.c.created_at,
    "started_at": jobs.c.started_at,
    "ended_at": jobs.c.ended_at,
    "number": jobs.c.number,
    "run_s": jobs.c.ended_at - jobs.c.started_at,
}
LARGEST_PAGE = 10_000
SELECT_LIGHT = select(*LIGHT).where(jobs.c.id == bindparam("job"))
OPEN = [State.QUEUED.value, State.RUNNING.value]


def get(connection: Connection, job_id: str, owner: str | None) -> Job:
    """One job, whole; raises `UnknownJob`."""
    query = select(*WHOLE).where(jobs.c.id == job_id)
    row = connection.execute(query).mappings().one_or_none() if is_name(job_id) else None
    if row is None or (owner is not None and row["owner"] != owner):
        raise UnknownJob(job_id)
    return job_of(row)  # type: ignore[arg-type]  # RowMapping is a Mapping of str in all we select


def light(connection: Connection, job_id: str) -> Job:
    """One job without its request; raises `UnknownJob`."""
    row = connection.execute(SELECT_LIGHT, {"job": job_id}).mappings().one_or_none() if is_name(job_id) else None
    if row is None:
        raise UnknownJob(job_id)
    return job_of(row)  # type: ignore[arg-type]


def page(connection: Connection, query: JobQuery) -> Page:
    """One page; a page beyond the end is empty. Raises `BadValue` where a search takes too long."""
    if query.text or query.fields:
        with within(connection):
            return _read(connection, query)
    return _read(connection, query)


def _read(connection: Connection, query: JobQuery) -> Page:
    total = connection.execute(select(func.count()).select_from(jobs).where(*_conditions(query))).scalar_one()
    rows = _page(query, WHOLE if query.with_request else LIGHT)
    return Page([job_of(row) for row in connection.execute(rows).mappings()], total)  # type: ignore[arg-type]


def ids(connection: Connection, query: JobQuery) -> Sequence[str]:
    """The ids of one page."""
    return connection.execute(_page(query, [jobs.c.id])).scalars().all()


def _page(query: JobQuery, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    if query.by not in ORDERS:
        raise BadValue("by", query.by, f"one of {', '.join(ORDERS)}")
    column = ORDERS[query.by]
    order = (column.desc(), jobs.c.seq.desc()) if query.newest_first else (column, jobs.c.seq)
    limit = min(query.limit, LARGEST_PAGE)
    return select(*columns).where(*_conditions(query)).order_by(*order).limit(limit).offset(query.offset)


def by_state(connection: Connection, state: State, owner: str | None = None) -> Sequence[Job]:
    """All jobs in one state, without their requests, in the order they came."""
    where = [jobs.c.state == state.value] + ([jobs.c.owner == owner] if owner is not None else [])
    rows = connection.execute(select(*LIGHT).where(*where).order_by(jobs.c.seq)).mappings()
    return [job_of(row) for row in rows]  # type: ignore[arg-type]


def requests(connection: Connection, job_ids: Sequence[str]) -> dict[str, Request]:
    """What these jobs ask for, by id; one that is gone is left out."""
    query = select(jobs.c.id, jobs.c.request).where(jobs.c.id.in_(job_ids))
    return {row.id: Request(**row.request) for row in connection.execute(query)}


def owing(connection: Connection) -> set[str]:
    """Open jobs whose end is owed to a webhook."""
    query = select(jobs.c.id).where(jobs.c.state.in_(OPEN), jobs.c.webhook.is_not(None))
    return set(connection.execute(query).scalars())


def _conditions(query: JobQuery) -> list[ColumnElement[bool]]:
    states = query.states
    conditions: list[ColumnElement[bool]] = []
    if query.owner is not None:
        conditions.append(jobs.c.owner == query.owner)
    if states is not None:
        conditions.append(jobs.c.state.in_([state.value for state in states]))
    if query.source is not None:
        conditions.append(jobs.c.source == query.source)
    if not query.with_withdrawn:
        conditions.append(or_(jobs.c.state != State.CANCELLED.value, jobs.c.attempt > 0))
    if query.since is not None:
        conditions.append(jobs.c.created_at >= query.since)
    if query.until is not None:
        conditions.append(jobs.c.created_at < query.until)
    if query.longest_request is not None:
        conditions.append(length() <= query.longest_request)
    if query.older_than is not None:
        conditions.append(_is_older(*query.older_than, query.owner))
    if query.sooner_than is not None:
        priority, number = query.sooner_than
        is_sooner = and_(jobs.c.priority == priority, jobs.c.number < number)
        conditions.append(or_(jobs.c.priority > priority, is_sooner))
    conditions += says(query.text, query.fields)
    if query.by == "ended_at":
        conditions.append(jobs.c.state.in_([state.value for state in ENDED]))
    return conditions


def _is_older(at: float, job_id: str, owner: str | None) -> ColumnElement[bool]:
    """Whether a job comes after that one where the newest are first; of one moment those count that it can tell."""
    own = [jobs.c.owner == owner] if owner is not None else []  # what another has must not show
    place = select(jobs.c.seq).where(jobs.c.id == job_id, *own).scalar_subquery()
    return or_(jobs.c.created_at < at, and_(jobs.c.created_at == at, jobs.c.seq < place))
