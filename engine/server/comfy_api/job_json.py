"""Jobs and their outputs as the protocol writes them. An output's id holds the job and the place, and no record."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.server.comfy.view import PLACES, folder_of
from sigmagraph.engine.server.comfy_api.progress import Snapshot
from sigmagraph.engine.server.context import OwnerFolders
from sigmagraph.engine.server.files import Outside, resolve
from sigmagraph.engine.server.static import content_type
from sigmagraph.engine.units import DAY_S

__all__ = [
    "KEPT_S",
    "ROOT",
    "Shown",
    "instant",
    "job_record",
    "output_record",
    "place_of",
    "shown_by",
    "shown_so_far",
    "status_of",
]

ROOT = "/api/v2"
KEPT_S = 3650 * DAY_S
"""Records stay until somebody deletes them; the protocol wants a date."""
STATUSES: Mapping[State, str] = {
    State.QUEUED: "queued",
    State.RUNNING: "running",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "canceled",
    State.EXPIRED: "expired",
}
KINDS = {"images": "image", "gifs": "video", "video": "video", "audio": "audio", "latents": "latent", "text": "text"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing a node showed: a file of the folder `place` (`output`, `input` or `temp`), or words (`path` None)."""

    node_id: str
    kind: str
    index: int
    name: str
    path: Path | None
    place: str = ""
    text: str = ""

    @property
    def words(self) -> bytes:
        """The words as a file has them; half a character, which none can hold, is a question mark."""
        return self.text.encode(errors="replace")

    def id_in(self, job_id: str) -> str:
        """The asset id: the job and the place in what it shows."""
        place = json.dumps([self.node_id, self.kind, self.index], separators=(",", ":")).encode()
        return f"{job_id}.{base64.urlsafe_b64encode(place).decode().rstrip('=')}"


def status_of(job: Job) -> str:
    """The word for a job's state; a running one that was told to stop is `canceling`."""
    if job.state is State.RUNNING and job.cancel_requested:
        return "canceling"
    return STATUSES[job.state]


def job_record(
    job: Job, base: str, places: OwnerFolders, snapshot: Snapshot | None = None, position: int | None = None
) -> dict[str, Any]:
    """One job, whole."""
    own = f"{ROOT}/jobs/{job.id}"
    shown = shown_so_far(job, snapshot)
    begun = job.started_at if job.started_at is not None else job.ended_at
    record = {
        "id": job.id,
        "status": status_of(job),
        "created_at": instant(job.created_at),
        "started_at": instant(job.started_at),
        "completed_at": instant(job.ended_at),
        "expires_at": instant((job.ended_at or job.created_at) + KEPT_S),
        "queue_position": position,
        "progress": snapshot.wire() if snapshot is not None and job.state is State.RUNNING else None,
        "outputs": [output_record(job, output, base) for output in shown_by(shown, places)],
        "error": _failure(job),
        "metrics": {
            "queue_ms": None if begun is None else _span_ms(begun - job.created_at),
            "execution_ms": None if job.run_s is None else _span_ms(job.run_s),
        },
        "urls": {"self": own, "events": f"{own}/events", "cancel": f"{own}/cancel"},
    }
    kept = {name: job.meta[name] for name in ("metadata", "priority") if job.meta.get(name) is not None}
    return record | kept


def _span_ms(seconds: float) -> int:
    """As it is told: a clock that was set back makes no time negative."""
    return max(0, round(seconds * 1000))


def shown_so_far(job: Job, snapshot: Snapshot | None) -> Mapping[str, Any]:
    """What each node shows: at the end by the outcome, before it by the snapshot."""
    if job.outcome is not None:
        return job.outcome.outputs
    return snapshot.shown if snapshot is not None else {}


def _failure(job: Job) -> dict[str, Any] | None:
    if job.state is not State.FAILED or job.failure is None:
        return None
    why = job.failure
    code = "node_execution_error" if why.node_id else why.code
    place = {"node_id": why.node_id or None, "class_type": why.class_type or None}
    return {"code": code, "message": why.message, **place, "traceback": None}


def shown_by(outputs: Mapping[str, Mapping[str, Any]], places: OwnerFolders) -> Iterator[Shown]:
    """What a run shows: files below the owner's folders, and words. What is neither (a progress bar) is left out."""
    for node_id, output in outputs.items():
        for kind, entries in output.items():
            for index, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
                place = str(entry.get("type", "output")) if isinstance(entry, Mapping) and "filename" in entry else ""
                if place in PLACES:
                    name, folder = str(entry["filename"]), str(entry.get("subfolder", ""))
                    try:
                        path = resolve(folder_of(places, place), folder, name)
                    except Outside:
                        continue
                    yield Shown(node_id, kind, index, name, path, place)
                elif kind == "text":
                    yield Shown(node_id, kind, index, f"{node_id}-{index}.txt", None, text=str(entry))


def output_record(job: Job, shown: Shown, base: str) -> dict[str, Any]:
    """One output."""
    asset_id = shown.id_in(job.id)
    size = len(shown.words)
    if shown.path is not None:
        size = shown.path.stat().st_size if shown.path.is_file() else 0
    return {
        "node_id": shown.node_id,
        "name": shown.name,
        "type": KINDS.get(shown.kind, "file"),
        "content_type": content_type(shown.name),
        "size_bytes": size,
        "id": asset_id,
        "hash": None,
        "url": f"{base}{ROOT}/assets/{asset_id}/content",
        "url_expires_at": instant(
            job.created_at + KEPT_S
        ),  # it asks for the key each time, and holds as long as the job
        "job_id": job.id,
    }


def place_of(asset_id: str) -> tuple[str, tuple[str, str, int]] | None:
    """The job and the place that an output's id names; None for any other id."""
    job_id, dot, written = asset_id.rpartition(".")
    if not dot:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(written + "=" * (-len(written) % 4)))
        node_id, kind, index = place
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    is_place = isinstance(node_id, str) and isinstance(kind, str) and isinstance(index, int)
    return (job_id, (node_id, kind, index)) if is_place else None


def instant(at: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
