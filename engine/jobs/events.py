"""What happens to a job: numbered records. What happens inside its run are the events of `sigmagraph.engine.execution`.

The log of a job is `Queued`, then per attempt `Started` and the run's events, then exactly one `Ended`, the last.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sigmagraph.engine.execution import events as run_events
from sigmagraph.engine.jobs.job import Failure, State

__all__ = ["Body", "Cause", "Ended", "JobEvent", "Preview", "Queued", "Requeued", "Started", "is_last"]


@dataclass(frozen=True, slots=True)
class Queued:
    """Accepted and committed."""

    number: float


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt began on a worker."""

    attempt: int
    worker: str


class Cause(StrEnum):
    """Why an attempt was lost, as far as the job is concerned."""

    SERVER = "server"  # the server stopped or was killed, and its worker with it
    OUTSIDE = "outside"  # somebody killed the worker
    JOB = "job"  # the worker crashed, ran out of memory or hung: perhaps the job's doing


@dataclass(frozen=True, slots=True)
class Requeued:
    """The attempt was lost (worker died, step deadline missed, server stopped); the job waits for the next one."""

    attempt: int
    reason: str
    cause: str = Cause.SERVER


@dataclass(frozen=True, slots=True)
class Ended:
    """The end, once per job; the row says the same from before this event is seen."""

    state: State
    failure: Failure | None = None


Body = Queued | Started | Requeued | Ended | run_events.Event


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One stored event: `number` counts from 1 per job without gaps, `at` is seconds since 1970."""

    job_id: str
    owner: str
    number: int
    at: float
    body: Body


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of work in progress. Live only: never stored, never numbered, dropped for who is not listening."""

    job_id: str
    owner: str
    node_id: str
    content_type: str
    data: bytes
    meta: dict[str, Any]


def is_last(event: JobEvent) -> bool:
    """Whether nothing follows in this job's log."""
    return isinstance(event.body, Ended)
