"""Is a job to blame for the workers that died under it? Counted are deaths in a row at the same place.

A process can be killed by anyone: an operator, the kernel short of memory, a power cut. A job that gets further with
every attempt will end, and one that dies where an earlier attempt came past was not the reason; a job that dies at
its furthest place again and again will never end. Functions of a transaction.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, select

from engine.jobs.database import Tx
from engine.jobs.tables import events

__all__ = ["strikes_after"]

TELLING = ("started", "node_started", "node_finished", "node_progress")
SELECT_TELLING = (
    select(events.c.type, events.c.body)
    .where(events.c.job_id == bindparam("job"), events.c.type.in_(TELLING))
    .order_by(events.c.number)
)
DONE = math.inf


@dataclass(slots=True)
class _Reached:
    """How far each node came: 0 begun, a progress value, or done."""

    places: dict[str, float] = field(default_factory=dict)

    def note(self, node_id: str, value: float) -> None:
        self.places[node_id] = max(self.places.get(node_id, 0.0), value)

    def is_further_than(self, other: "_Reached") -> bool:
        return any(value > other.places.get(node_id, 0.0) for node_id, value in self.places.items())

    def died_before(self, other: "_Reached") -> bool:
        """Whether the other came past every place at which this one stood when it ended."""
        unfinished = [(node_id, value) for node_id, value in self.places.items() if value < DONE]
        return bool(other.places) and all(other.places.get(node_id, 0.0) > value for node_id, value in unfinished)


def strikes_after(tx: Tx, job_id: str, before: int) -> int:
    """How many deaths in a row count against the job, after one more."""
    earlier, latest = _reached(tx, job_id)
    if latest.is_further_than(earlier):
        return 1
    return before if latest.died_before(earlier) else before + 1


def _reached(tx: Tx, job_id: str) -> tuple[_Reached, _Reached]:
    """How far all earlier attempts came, and how far the latest."""
    earlier, latest = _Reached(), _Reached()
    for row in tx.connection.execute(SELECT_TELLING, {"job": job_id}):
        if row.type == "started":
            for node_id, value in latest.places.items():
                earlier.note(node_id, value)
            latest = _Reached()
        else:
            latest.note(row.body["node_id"], _value(row.type, row.body))
    return earlier, latest


def _value(kind: str, body: dict[str, Any]) -> float:
    if kind == "node_progress":
        return float(body["value"])
    return DONE if kind == "node_finished" else 0.0
