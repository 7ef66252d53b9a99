"""Jobs as ComfyUI shows them: queue items, history entries, and the records of the newer jobs endpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

from sigmagraph.engine.execution import events as run
from sigmagraph.engine.jobs.events import JobEvent
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.server.comfy.socket_messages import as_failed_run, error_data, interrupted_data

__all__ = ["STATUSES", "detail", "history_entry", "queue_item", "summary"]

STATUSES: Mapping[State, str] = {
    State.QUEUED: "pending",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.EXPIRED: "cancelled",
}
PREVIEWABLE = ("images", "gifs", "video", "audio", "3d")


def queue_item(job: Job) -> list[Any]:
    """Number, id, prompt, extra data, outputs to run."""
    request = job.request
    number = int(job.number) if job.number.is_integer() and not job.meta.get("number_given") else job.number
    if request is None:
        return [number, job.id, {}, {}, []]
    return [number, job.id, request.prompt, request.extra_data, list(request.targets)]


def history_entry(job: Job, failed: JobEvent | None = None) -> dict[str, Any]:
    """An ended job; `failed` is its stored `RunFailed` or `RunCancelled`, which alone knows traceback and node."""
    outcome = job.outcome
    nodes = outcome.nodes if outcome is not None else {}
    return {
        "prompt": queue_item(job),
        "outputs": dict(outcome.outputs) if outcome is not None else {},
        "status": _status(job, failed),
        "meta": {node_id: _place(node_id, nodes.get(node_id, {})) for node_id in (outcome.outputs if outcome else ())},
    }


def summary(job: Job) -> dict[str, Any]:
    """One line of the jobs endpoint."""
    shown = list(_shown(job))
    record = {
        "id": job.id,
        "status": STATUSES[job.state],
        "priority": queue_item(job)[0],
        "create_time": _ms(job.created_at),
        "execution_start_time": _ms(job.started_at),
        "execution_end_time": _ms(job.ended_at),
        "outputs_count": len(shown),
        "previewable_outputs_count": sum(file["mediaType"] in PREVIEWABLE for file in shown),
        "workflow_id": job.meta.get("workflow_id"),
        "preview_output": _best(shown),
    }
    if job.state is State.FAILED and job.failure is not None:
        record["execution_error"] = error_data(job.id, as_failed_run(job.failure), job.ended_at or 0.0)
    return record


def detail(job: Job, failed: JobEvent | None = None) -> dict[str, Any]:
    """One job of the jobs endpoint, with what it was asked, what it gave and how each node came to its result."""
    record = summary(job) | {
        "outputs": dict(job.outcome.outputs) if job.outcome is not None else {},
        "execution_status": _status(job, failed) if job.state.is_end else None,
        "nodes": dict(job.outcome.nodes) if job.outcome is not None else {},
        "workflow": {
            "prompt": job.request.prompt if job.request is not None else {},
            "extra_data": job.request.extra_data if job.request is not None else {},
        },
    }
    if failed is not None and isinstance(failed.body, run.RunFailed):
        record["execution_error"] = error_data(job.id, failed.body, failed.at)
    return record


def _status(job: Job, failed: JobEvent | None) -> dict[str, Any]:
    is_success = job.state is State.SUCCEEDED
    messages = list(_messages(job, failed))
    return {"status_str": "success" if is_success else "error", "completed": is_success, "messages": messages}


def _messages(job: Job, failed: JobEvent | None) -> Iterator[list[Any]]:
    """The run's course, told from the row: start, what was cached, end."""
    begun, ended = job.started_at, job.ended_at or job.created_at
    if begun is not None:
        nodes = job.outcome.nodes if job.outcome is not None else {}
        cached = [node_id for node_id, report in nodes.items() if report.get("outcome") in ("memory", "disk")]
        yield ["execution_start", {"prompt_id": job.id, "timestamp": _ms(begun)}]
        yield ["execution_cached", {"nodes": cached, "prompt_id": job.id, "timestamp": _ms(begun)}]
    if job.state is State.SUCCEEDED:
        yield ["execution_success", {"prompt_id": job.id, "timestamp": _ms(ended)}]
    elif failed is not None and isinstance(failed.body, run.RunFailed):
        yield ["execution_error", error_data(job.id, failed.body, failed.at)]
    elif failed is not None and isinstance(failed.body, run.RunCancelled):
        yield ["execution_interrupted", interrupted_data(job.id, failed.body, failed.at)]
    elif job.state is State.FAILED and job.failure is not None:
        yield ["execution_error", error_data(job.id, as_failed_run(job.failure), ended)]
    else:
        where = job.failure
        cancelled = run.RunCancelled(where.node_id if where else "", where.class_type if where else "")
        yield ["execution_interrupted", interrupted_data(job.id, cancelled, ended)]


def _place(node_id: str, report: Mapping[str, Any]) -> dict[str, Any]:
    display = report.get("display_id") or node_id
    return {
        "node_id": node_id,
        "display_node": display,
        "parent_node": report.get("parent_id"),
        "real_node_id": display,
    }


def _shown(job: Job) -> Iterator[dict[str, Any]]:
    """Every entry of the outputs, flat."""
    for node_id, output in (job.outcome.outputs if job.outcome is not None else {}).items():
        for kind, entries in output.items():
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict) and "filename" in entry:
                    yield {**entry, "nodeId": node_id, "mediaType": kind}
                elif kind == "text":
                    yield {"content": str(entry), "nodeId": node_id, "mediaType": "text"}


def _best(shown: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What stands for the job in a list: the first saved file, else the first preview, else text."""
    files = [file for file in shown if file["mediaType"] in PREVIEWABLE]
    saved = (file for file in files if file.get("type") == "output")
    return next(saved, None) or next(iter(files), None) or next(iter(shown), None)


def _ms(at: float | None) -> int | None:
    return None if at is None else round(at * 1000)
