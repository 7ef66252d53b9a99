"""The log of a job in the store: appending numbered events, reading them again, and whose the files in them are."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from sigmagraph.engine.execution.events import NodeFinished
from sigmagraph.engine.jobs.artifacts import entries
from sigmagraph.engine.jobs.event_json import decode, encode
from sigmagraph.engine.jobs.events import Body, JobEvent
from sigmagraph.engine.jobs.job import LARGEST, MadeFile
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.statements import Statement
from sigmagraph.engine.jobs.store.tables import artifacts, events, jobs

__all__ = ["append", "append_all", "files_made", "keep", "owner_of_file", "read", "span"]

INSERT_EVENTS = Statement(insert(events), given=[column.name for column in events.c])
INSERT_FILES = Statement(insert(artifacts), given=[column.name for column in artifacts.c if column.name != "seq"])
STEPPED = [jobs.c.events, jobs.c.owner]


def append(tx: Tx, job_id: str, bodies: Sequence[Body], at: float, **changes: Any) -> int:
    """Events of one moment, and changes of the job's row with them; the number of the last event."""
    return append_all(tx, job_id, [(at, body) for body in bodies], **changes)


def append_all(tx: Tx, job_id: str, said: Sequence[tuple[float, Body]], **changes: Any) -> int:
    """Number the events, store them, and have them published. A job that is gone is passed over."""
    given = {f"new_{name}": value for name, value in changes.items()}
    row = _step(tuple(changes)).row(tx.connection, {"job": job_id, "said": len(said), **given})
    if row is None:
        return 0
    last, owner = int(row["events"]), row["owner"]
    first = last - len(said) + 1
    keep(tx, [JobEvent(job_id, owner, first + index, at, body) for index, (at, body) in enumerate(said)])
    return last


def keep(tx: Tx, made: Sequence[JobEvent]) -> None:
    """Store events that are numbered already."""
    if not made:
        return
    INSERT_EVENTS.run(tx.connection, [_row(event) for event in made])
    files = [file for event in made for file in _files(event)]
    if files:
        INSERT_FILES.run(tx.connection, files)
    tx.events.extend(made)


@cache
def _step(names: tuple[str, ...]) -> Statement:
    """The row's step to its next events; statements are built once, not per event."""
    new = {name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in names}
    step = update(jobs).where(jobs.c.id == bindparam("job")).values(events=jobs.c.events + bindparam("said"), **new)
    return Statement(step.returning(*STEPPED), STEPPED)


def read(connection: Connection, job_id: str, owner: str, after: int, limit: int) -> list[JobEvent]:
    """Events above `after`, in order."""
    query = (
        select(events)
        .where(events.c.job_id == job_id, events.c.number > max(0, min(after, LARGEST)))
        .order_by(events.c.number)
        .limit(max(0, min(limit, LARGEST)))
    )
    return [
        JobEvent(job_id, owner, row.number, row.at, decode(row.type, row.body)) for row in connection.execute(query)
    ]


def span(connection: Connection, job_id: str, owner: str, first: int, last: int) -> list[JobEvent]:
    """Events of these numbers."""
    return [event for event in read(connection, job_id, owner, first - 1, last - first + 1) if event.number <= last]


def owner_of_file(connection: Connection, kind: str, subfolder: str, filename: str) -> str | None:
    """Who made a file last."""
    query = (
        select(artifacts.c.owner)
        .where(
            artifacts.c.filename == _text(filename),
            artifacts.c.subfolder == _text(subfolder),
            artifacts.c.kind == _text(kind),
        )
        .order_by(artifacts.c.seq.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def files_made(connection: Connection, owner: str, after: int, limit: int) -> list[MadeFile]:
    """Files of an owner's jobs that were stored after that number: the newest so many, the newest last."""
    query = select(artifacts).where(artifacts.c.owner == owner, artifacts.c.seq > after)
    rows = connection.execute(query.order_by(artifacts.c.seq.desc()).limit(limit)).all()
    return [
        MadeFile(row.seq, row.job_id, row.at, row.node_id, row.kind, row.subfolder, row.filename)
        for row in reversed(rows)
    ]


def _row(event: JobEvent) -> dict[str, Any]:
    name, body = encode(event.body)
    return {"job_id": event.job_id, "number": event.number, "at": event.at, "type": name, "body": body}


def _files(event: JobEvent) -> list[dict[str, Any]]:
    """What a node says it wrote."""
    body = event.body
    if not isinstance(body, NodeFinished):
        return []
    made = {"job_id": event.job_id, "owner": event.owner, "at": event.at, "node_id": body.node_id}
    return [made | {name: _text(value) for name, value in file.items()} for file in entries(body.ui)]


def _text(name: str) -> str:
    """A file name as both databases can hold it: one that is not text, or has a NUL, is written in escapes."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
