"""Jobs in this protocol's words: states, metrics, headers, bodies. Pure: reads no file and asks nobody."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sigmagraph.engine.jobs.billing.accounts import Account
from sigmagraph.engine.jobs.job import LOCAL, Failure, Job, State
from sigmagraph.engine.server.context import compact
from sigmagraph.engine.units import CREDIT

__all__ = [
    "STATUSES",
    "accepted",
    "credits_left",
    "error_of",
    "headers_of",
    "image_body",
    "metrics",
    "remaining",
    "state_body",
]

STATUSES = {
    State.QUEUED: "QUEUED",
    State.RUNNING: "PROCESSING",
    State.SUCCEEDED: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "FAILED",
    State.EXPIRED: "FAILED",
}
ENDS = {
    State.CANCELLED: Failure("cancelled", "The request was cancelled"),
    State.EXPIRED: Failure("expired", "The request was not begun in time"),
}
UNLIMITED = "Infinity"
"""Both Python's float() and JavaScript's Number() read it: a server without keys counts no credits."""


def urls(job_id: str, base: str) -> dict[str, str]:
    """Where a request can be watched, fetched and cancelled."""
    own = f"{base}/v2/requests/{job_id}"
    return {
        "poll_url": f"{base}/v1/requests/{job_id}",
        "status_url": f"{own}/status",
        "response_url": own,
        "cancel_url": f"{own}/cancel",
        "events_url": f"{own}/events",
    }


def accepted(job: Job, base: str) -> dict[str, Any]:
    """The answer to a submission."""
    return {"request_id": job.id, "status": STATUSES[job.state], **urls(job.id, base)}


def error_of(job: Job) -> Failure:
    """Why an ended job brought nothing, in one line."""
    failure = job.failure or ENDS.get(job.state, Failure("failed", "The request failed"))
    return replace(failure, message="; ".join(failure.message.splitlines()))


def remaining(standing: Account | None) -> float | None:
    """Credits that can still be spent; None where none are counted."""
    return (standing.credits - standing.held) / CREDIT if standing is not None else None


def credits_left(standing: Account | None) -> str:
    """The same as a header says it."""
    left = remaining(standing)
    return UNLIMITED if left is None else f"{left:.6f}"


def metrics(job: Job, standing: Account | None, now: float) -> dict[str, Any]:
    """Seconds and credits of a request; no credits for one that failed, because none were taken."""
    begun, ended = job.started_at, job.ended_at
    found: dict[str, Any] = {"queue_time": _seconds(job.created_at, begun or ended or now)}
    if begun is not None:
        found["inference_time"] = _seconds(begun, ended or now)
    found["total_time"] = _seconds(job.created_at, ended or now)
    found["retry_count"] = max(0, job.attempt - 1)
    if job.state is State.SUCCEEDED:
        found |= {"cost": _cost(job), "remaining_credits": remaining(standing)}
    return found


def state_body(job: Job, standing: Account | None, now: float, base: str) -> dict[str, Any]:
    """The status of a request, without its output."""
    body = {"status": STATUSES[job.state], "request_id": job.id, "metrics": metrics(job, standing, now)}
    if body["status"] == "FAILED":
        failure = error_of(job)
        body |= {"error": failure.message, "code": failure.code}
    own = urls(job.id, base)
    return body | {"status_url": own["status_url"], "response_url": own["response_url"]}


def image_body(job: Job, images: Sequence[str], *, is_url: bool, note: str = "") -> dict[str, Any]:
    """The JSON reply of the blocking call; `image` is the first, `images` are all."""
    first = images[0]
    body: dict[str, Any] = {"image": first, "images": list(images)}
    body |= {"image_url": first} if is_url else {}
    body |= {"seed": job.meta.get("seed"), "request_id": job.id, "infer_time": _run_s(job), "cost": _cost(job)}
    body |= {"image_format": job.meta.get("format"), "metadata": job.meta.get("facts", {})}
    ignored = job.meta.get("ignored")
    body |= {"ignored_fields": ignored} if ignored else {}
    return body | ({"note": note} if note else {})


def headers_of(job: Job, standing: Account | None, rate: dict[str, str]) -> dict[str, str]:
    """The accounting of a 200."""
    seed = job.meta.get("seed")
    return {
        "x-request-id": job.id,
        "x-generation-time": f"{_run_s(job):.3f}",
        "x-seed-value": str(seed) if seed is not None else "",
        "x-cost": f"{_cost(job):.6f}",
        "x-remaining-credits": credits_left(standing),
        "x-output-metadata": compact(job.meta.get("facts", {})),
        **rate,
    }


def _cost(job: Job) -> float:
    """What was charged; the owner of a server without keys is charged nothing."""
    return 0.0 if job.owner == LOCAL else job.cost / CREDIT


def _run_s(job: Job) -> float:
    return round(job.run_s or 0.0, 3)


def _seconds(begun: float, ended: float) -> float:
    return round(max(0.0, ended - begun), 3)
