"""Is a job to blame for the workers that died under it? Counted are deaths in a row at the same place.

What an operator or a power cut did is told apart before (`events.Cause`); a crash counts, a silence, and a kill by a
kernel short of memory. A job that gets further with every attempt will end. One that dies where an earlier attempt came
past, or stood for much longer, was not the reason; a job that dies at its furthest place again and again will never
end. Functions of a transaction.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, select

from sigmagraph.engine.jobs.events import Cause
from sigmagraph.engine.jobs.store.database import Tx
from sigmagraph.engine.jobs.store.tables import events

__all__ = ["losses", "strikes_after"]

TELLING = ("started", "requeued", "node_started", "node_finished", "node_progress")
SELECT_TELLING = (
    select(events.c.type, events.c.body, events.c.at)
    .where(events.c.job_id == bindparam("job"), events.c.type.in_(TELLING))
    .order_by(events.c.number)
)
SELECT_LOST = select(events.c.body).where(events.c.job_id == bindparam("job"), events.c.type == "requeued")
DONE = math.inf
LONGER, NOISE_S = 2.0, 1.0
"""A crash that comes after some time comes after about that time: who stood twice as long did not die of the place."""
BEGINNING = ""
"""The place before any node."""


@dataclass(slots=True)
class _Attempt:
    """Where an attempt stood: node -> how far (0 begun, a progress value, or done), and since when; and its end."""

    places: dict[str, tuple[float, float]] = field(default_factory=dict)
    ended_at: float = 0.0

    def stood(self, node_id: str, value: float) -> float:
        """For how long it stood at this place, or longer than it can be said for having come past it."""
        found, since = self.places.get(node_id, (-1.0, 0.0))
        return DONE if found > value else self.ended_at - since if found == value else 0.0


def strikes_after(tx: Tx, job_id: str, before: int, at: float) -> int:
    """How many deaths in a row count against the job, after one more."""
    *earlier, latest = _attempts(tx, job_id, at)
    reached = {
        node_id: max((attempt.places.get(node_id, (0.0, 0.0))[0] for attempt in earlier), default=0.0)
        for node_id in latest.places
    }
    if any(value > reached[node_id] for node_id, (value, _) in latest.places.items()):
        return 1
    ends = [(node_id, value) for node_id, (value, _) in latest.places.items() if value < DONE]
    for node_id, value in ends:
        mine = max(NOISE_S, latest.stood(node_id, value))
        if not any(attempt.stood(node_id, value) > LONGER * mine for attempt in earlier):
            return before + 1
    return before


def losses(tx: Tx, job_id: str) -> int:
    """How many workers died under the job before, whoever was to blame; a stop of the server is none."""
    bodies = tx.connection.execute(SELECT_LOST, {"job": job_id}).scalars()
    return sum(body.get("cause", Cause.SERVER) != Cause.SERVER for body in bodies)


def _attempts(tx: Tx, job_id: str, at: float) -> list[_Attempt]:
    """All attempts, the last of them the one that has just died."""
    attempts: list[_Attempt] = []
    for row in tx.connection.execute(SELECT_TELLING, {"job": job_id}):
        if row.type == "started":
            attempts.append(_Attempt({BEGINNING: (0.0, row.at)}))
        elif row.type == "requeued":
            attempts[-1].ended_at = row.at
        else:
            attempts[-1].places[BEGINNING] = DONE, row.at
            attempts[-1].places[row.body["node_id"]] = _value(row.type, row.body), row.at
    attempts[-1].ended_at = at
    return attempts


def _value(kind: str, body: dict[str, Any]) -> float:
    if kind == "node_progress":
        return float(body["value"])
    return DONE if kind == "node_finished" else 0.0
