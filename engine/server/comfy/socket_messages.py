"""Events of a job as the messages of ComfyUI's socket: which, to whom, in what order. No sockets here."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, singledispatchmethod
from typing import Any, Literal

from sigmagraph.engine.execution import events as run
from sigmagraph.engine.jobs.events import Ended, JobEvent, Preview, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import Failure
from sigmagraph.engine.server.comfy.progress import DrawnProgress
from sigmagraph.engine.server.context import compact

__all__ = [
    "Audience",
    "Message",
    "Narrator",
    "PictureFrame",
    "Sent",
    "as_failed_run",
    "changes_count",
    "error_data",
    "executing",
    "interrupted_data",
    "status",
]

Audience = Literal["client", "client_or_all", "all"]
"""The job's client; the client, or all of the owner's where the job has none; all of the owner's."""

MOST_UNTOLD = 256
IMAGE_FORMATS = {"image/jpeg": 1, "image/png": 2}


@dataclass(frozen=True)
class Message:
    """One text message. A newer one with the same `replaces` makes a waiting older one worthless."""

    kind: str
    data: dict[str, Any]
    to: Audience = "client"
    replaces: str | None = None

    @cached_property
    def text(self) -> str:
        """The frame; `type` comes first because one client reads the first bytes only."""
        return compact({"type": self.kind, "data": self.data})

    def numbered(self, event: str) -> str:
        """The frame with the event it is of, for clients that asked for that."""
        return compact({"type": self.kind, "data": self.data, "event": event})


@dataclass(frozen=True)
class PictureFrame:
    """A preview: with metadata for clients that said they read it, bare for the others."""

    content_type: str
    data: bytes
    meta: dict[str, Any]
    to: Audience = "client_or_all"
    is_result: bool = False

    def frame(self, *, takes_metadata: bool) -> bytes:
        """The binary message (type 4, or type 1 with the format number)."""
        return self._with_metadata if takes_metadata else self._bare

    @cached_property
    def _with_metadata(self) -> bytes:
        head = json.dumps({**self.meta, "image_type": self.content_type}).encode()
        return struct.pack(">II", 4, len(head)) + head + self.data

    @cached_property
    def _bare(self) -> bytes:
        return struct.pack(">II", 1, IMAGE_FORMATS.get(self.content_type, 1)) + self.data


Sent = Message | PictureFrame


def status(remaining: int, sid: str | None = None) -> Message:
    """How many jobs wait and run; the first one a client gets also tells it its id."""
    data: dict[str, Any] = {"status": {"exec_info": {"queue_remaining": remaining}}}
    return Message("status", data if sid is None else data | {"sid": sid}, "all")


def deleted(remaining: int, job_ids: Sequence[str] | None) -> Message:
    """A status that names the jobs that were deleted; None: all that had ended."""
    said = status(remaining)
    return Message(said.kind, {**said.data, "deleted": "all" if job_ids is None else [*job_ids]}, said.to)


def executing(job_id: str, node_id: str | None, display_id: str | None = None) -> Message:
    """Which node runs; None: none any more."""
    place = {} if node_id is None else {"display_node": display_id or node_id}
    return Message("executing", {"node": node_id, **place, "prompt_id": job_id})


def error_data(job_id: str, failed: run.RunFailed, at: float) -> dict[str, Any]:
    """What `execution_error` says, on the socket and in history."""
    return {
        "prompt_id": job_id,
        "node_id": failed.node_id,
        "node_type": failed.class_type,
        "executed": list(failed.executed),
        "exception_message": failed.message.rstrip("\n") + "\n",
        "exception_type": failed.exception_type,
        "traceback": list(failed.traceback),
        "current_inputs": {name: _listed(value) for name, value in failed.inputs.items()} or [],
        "current_outputs": list(failed.executed),
        "timestamp": _ms(at),
    }


def as_failed_run(failure: Failure) -> run.RunFailed:
    """A failure as the event a node's failure would have been."""
    kind = failure.exception_type or failure.code
    return run.RunFailed(failure.node_id, failure.class_type, failure.message, kind)


def interrupted_data(job_id: str, cancelled: run.RunCancelled, at: float) -> dict[str, Any]:
    """What `execution_interrupted` says."""
    place = {"node_id": cancelled.node_id, "node_type": cancelled.class_type}
    return {"prompt_id": job_id, **place, "executed": list(cancelled.executed), "timestamp": _ms(at)}


@dataclass
class Narrator:
    """Tells one job's events as messages, in the order the page expects. Holds where each node is."""

    job_id: str
    owner: str
    client_id: str | None
    progress: DrawnProgress = field(init=False)
    has_begun: bool = False
    has_failed: bool = False
    early: list[Preview] = field(default_factory=list)
    untold: list[JobEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.progress = DrawnProgress(self.job_id)

    def tell(self, event: JobEvent) -> list[Sent]:
        """The messages of one event; `status` is the hub's to add."""
        return list(self._tell(event.body, event.at))

    def pass_over(self, event: JobEvent) -> None:
        """Nobody listens to this event; it is looked at when somebody does, or when there are many."""
        self.untold.append(event)
        if len(self.untold) > MOST_UNTOLD:
            self.catch_up()

    def catch_up(self) -> None:
        """Know where each node is now."""
        events, self.untold = self.untold, []
        for event in events:
            self.tell(event)

    def show(self, preview: Preview) -> list[Sent]:
        """A preview as the binary message it becomes."""
        meta = {"node_id": preview.node_id, "prompt_id": self.job_id, **self.progress.place(preview.node_id)}
        return [PictureFrame(preview.content_type, preview.data, meta, is_result=bool(preview.meta.get("is_result")))]

    @singledispatchmethod
    def _tell(self, body: object, at: float) -> Iterator[Sent]:
        """Events this protocol has no word for."""
        del body, at
        return iter(())

    @_tell.register
    def _(self, body: Started, at: float) -> Iterator[Sent]:
        self.progress, self.has_begun = DrawnProgress(self.job_id), True
        yield Message("execution_start", {"prompt_id": self.job_id, "timestamp": _ms(at)})

    @_tell.register
    def _(self, body: run.RunStarted, at: float) -> Iterator[Sent]:
        data = {"nodes": list(body.cached), "prompt_id": self.job_id, "timestamp": _ms(at)}
        yield Message("execution_cached", data)

    @_tell.register
    def _(self, body: run.NodeStarted, at: float) -> Iterator[Sent]:
        yield self._state(body.node_id, self.progress.started(body.node_id, body.display_id))
        yield executing(self.job_id, body.node_id, body.display_id)

    @_tell.register
    def _(self, body: run.NodeProgress, at: float) -> Iterator[Sent]:
        yield self._state(body.node_id, self.progress.ticked(body.node_id, body.value, body.maximum))
        data = {"value": body.value, "max": body.maximum, "prompt_id": self.job_id, "node": body.node_id}
        yield Message("progress", data, "client_or_all", f"progress {body.node_id}")

    @_tell.register
    def _(self, body: run.NodeFinished, at: float) -> Iterator[Sent]:
        if body.source != "executed" and body.ui is None:
            return
        if body.ui is not None:
            place = {"node": body.node_id, "display_node": body.display_id}
            yield Message("executed", {**place, "output": body.ui, "prompt_id": self.job_id})
        yield self._state(body.node_id, self.progress.finished(body.node_id, body.display_id))

    @_tell.register
    def _(self, body: run.NodeBlocked, at: float) -> Iterator[Sent]:
        failed = run.RunFailed(body.node_id, body.class_type, f"Execution Blocked: {body.message}", "ExecutionBlocked")
        data = error_data(self.job_id, failed, at)
        del data["timestamp"]
        yield Message("execution_error", data | {"current_inputs": []})

    @_tell.register
    def _(self, body: run.RunFailed, at: float) -> Iterator[Sent]:
        self.has_failed = True
        if body.node_id:
            yield self._state(body.node_id, self.progress.failed(body.node_id))
        yield Message("execution_error", error_data(self.job_id, body, at))

    @_tell.register
    def _(self, body: run.RunCancelled, at: float) -> Iterator[Sent]:
        yield Message("execution_interrupted", interrupted_data(self.job_id, body, at), "client_or_all")

    @_tell.register
    def _(self, body: Ended, at: float) -> Iterator[Sent]:
        """A job can fail without a node to blame: its worker died, its time was up."""
        if body.failure is not None and self.has_begun and not self.has_failed:
            yield Message("execution_error", error_data(self.job_id, as_failed_run(body.failure), at))

    @_tell.register
    def _(self, body: run.RunSucceeded, at: float) -> Iterator[Sent]:
        yield Message("execution_success", {"prompt_id": self.job_id, "timestamp": _ms(at)})

    def _state(self, node_id: str, data: dict[str, Any]) -> Message:
        return Message("progress_state", data, "client_or_all", f"progress_state {self.job_id}")


def changes_count(event: JobEvent) -> bool:
    """Whether `status` follows: a job came, was taken, went back, or ended."""
    return isinstance(event.body, Queued | Started | Requeued | Ended)


def _listed(value: Any) -> list[Any]:
    """An input's printable values, as a list."""
    return value if isinstance(value, list) else [value]


def _ms(at: float) -> int:
    """Milliseconds since 1970."""
    return round(at * 1000)
