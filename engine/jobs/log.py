"""The log of a job in the store: appending numbered events, reading them again, and whose the files in them are."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from engine.execution.events import NodeFinished
from engine.jobs.artifacts import entries
from engine.jobs.database import Tx
from engine.jobs.events import Body, JobEvent
from engine.jobs.records import decode, encode
from engine.jobs.tables import artifacts, events, jobs

__all__ = ["append", "append_all", "owner_of_file", "read"]


def append(tx: Tx, job_id: str, bodies: Sequence[Body], at: float) -> None:
    """Events of one moment."""
    append_all(tx, job_id, [(at, body) for body in bodies])


def append_all(tx: Tx, job_id: str, said: Sequence[tuple[float, Body]]) -> None:
    """Number the events, store them, and have them published. A job that is no more is passed over."""
    row = tx.connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(events=jobs.c.events + len(said))
        .returning(jobs.c.events, jobs.c.owner)
    ).one_or_none()
    if row is None or not said:
        return
    first = row.events - len(said) + 1
    made = [JobEvent(job_id, row.owner, first + index, at, body) for index, (at, body) in enumerate(said)]
    tx.connection.execute(insert(events), [_row(event) for event in made])
    files = [file for event in made for file in _files(event)]
    if files:
        tx.connection.execute(insert(artifacts), files)
    tx.events.extend(made)


def read(connection: Connection, job_id: str, owner: str, after: int, limit: int) -> list[JobEvent]:
    """Events above `after`, in order."""
    query = (
        select(events).where(events.c.job_id == job_id, events.c.number > after).order_by(events.c.number).limit(limit)
    )
    return [
        JobEvent(job_id, owner, row.number, row.at, decode(row.type, row.body)) for row in connection.execute(query)
    ]


def owner_of_file(connection: Connection, kind: str, subfolder: str, filename: str) -> str | None:
    """Who made a file last."""
    query = (
        select(artifacts.c.owner)
        .where(artifacts.c.filename == filename, artifacts.c.subfolder == subfolder, artifacts.c.kind == kind)
        .order_by(artifacts.c.seq.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def _row(event: JobEvent) -> dict[str, Any]:
    name, body = encode(event.body)
    return {"job_id": event.job_id, "number": event.number, "at": event.at, "type": name, "body": body}


def _files(event: JobEvent) -> list[dict[str, Any]]:
    """What a node says it wrote."""
    body = event.body
    if not isinstance(body, NodeFinished):
        return []
    made = {"job_id": event.job_id, "owner": event.owner, "at": event.at, "node_id": body.node_id}
    return [made | file for file in entries(body.ui)]
