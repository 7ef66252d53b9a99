"""Rows into records and back. The one place that knows which column is which field."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement

from sigmagraph.engine.jobs.job import Failure, Job, Outcome, Request, State, Submission
from sigmagraph.engine.jobs.store.tables import jobs

__all__ = ["LIGHT", "SAME", "WHOLE", "inserted", "job_of"]

SAME = (
    "id",
    "owner",
    "number",
    "priority",
    "attempt",
    "created_at",
    "started_at",
    "ended_at",
    "expires_at",
    "cancel_requested",
    "worker",
    "source",
    "cost",
    "events",
    "retry_of",
    "meta",
)
LIGHT: Sequence[ColumnElement[Any]] = [jobs.c[name] for name in (*SAME, "state", "failure", "outcome")]
WHOLE: Sequence[ColumnElement[Any]] = [*LIGHT, jobs.c.request]


UNTOUCHED: dict[str, Any] = {
    "attempt": 0,
    "started_at": None,
    "ended_at": None,
    "cancel_requested": False,
    "worker": "",
    "failure": None,
    "outcome": None,
    "deaths": 0,
}
"""What a new job begins with."""


def job_of(row: Mapping[str, Any]) -> Job:
    """The job in a row of `LIGHT` or `WHOLE`."""
    request, failure, outcome = row.get("request"), row["failure"], row["outcome"]
    return Job(
        **{name: row[name] for name in SAME},
        state=State(row["state"]),
        failure=Failure(**failure) if failure is not None else None,
        outcome=Outcome(**outcome) if outcome is not None else None,
        request=Request(**request) if request is not None else None,
    )


def inserted(submission: Submission, request: Request, number: float, at: float) -> dict[str, Any]:
    """The first row of a job."""
    return UNTOUCHED | {
        "id": submission.job_id,
        "owner": submission.owner,
        "state": State.QUEUED.value,
        "number": number,
        "priority": submission.priority,
        "created_at": at,
        "expires_at": at + submission.expires_s if submission.expires_s is not None else None,
        "keep_s": submission.keep_s,
        "source": submission.source,
        "cost": submission.cost,
        "retry_of": submission.retry_of,
        "webhook": asdict(submission.webhook) if submission.webhook is not None else None,
        "meta": dict(submission.meta),
        "request": {
            "prompt": request.prompt,
            "targets": list(request.targets),
            "extra_data": request.extra_data,
            "shows": request.shows,
            "reuses_outputs": request.reuses_outputs,
        },
        "events": 1,
    }
