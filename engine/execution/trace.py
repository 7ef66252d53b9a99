"""A trace of runs in the format of the common trace viewers (Chrome's, Perfetto): a bar per node, a mark per step."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.report import Emit
from sigmagraph.engine.writing import write_file


class Trace:
    """Collects what listeners hear; one trace may hold several jobs, each under its own name."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._began = clock, clock()
        self._lock = threading.Lock()
        self._records: list[dict[str, Any]] = []
        self._jobs: dict[str, int] = {}
        self._open: dict[tuple[str, str], str] = {}

    def listener(self, job: str = "run", then: Emit = lambda event: None) -> Emit:
        """A listener for one job that notes each event and hands it on."""

        def emit(event: events.Event) -> None:
            self._note(job, event)
            then(event)

        return emit

    def write(self, path: Path) -> None:
        """The trace as a JSON file."""
        with self._lock:
            body = {"traceEvents": [*self._names(), *self._records], "displayTimeUnit": "ms"}
        write_file(path, json.dumps(body).encode())

    def _note(self, job: str, event: events.Event) -> None:
        match event:
            case events.NodeStarted():
                self._open[job, event.node_id] = event.class_type
                self._add(job, "b", event.class_type, event.node_id, {"node": event.node_id})
            case events.NodeProgress():
                done = {"value": event.value, "maximum": event.maximum}
                self._add(job, "n", "step", event.node_id, done)
            case events.NodeFinished() if self._open.pop((job, event.node_id), None) is not None:
                self._add(job, "e", event.class_type, event.node_id, {"milliseconds": event.milliseconds})
            case events.NodeFinished():
                self._add(job, "n", f"{event.class_type} from {event.source}", event.node_id, {})
            case events.NodeBlocked():
                self._add(job, "n", f"NodeBlocked: {event.message}", event.node_id, {})
            case events.RunFailed() | events.RunCancelled():
                reason = f": {event.message}" if isinstance(event, events.RunFailed) else ""
                self._add(job, "n", type(event).__name__ + reason, event.node_id, {})
                self._close(job)
            case _:
                self._add(job, "n", type(event).__name__, "", {})

    def _close(self, job: str) -> None:
        """End the bars of nodes that were under way when a run was broken off."""
        for begun in [span for span in self._open if span[0] == job]:
            self._add(job, "e", self._open.pop(begun), begun[1], {})

    def _add(self, job: str, phase: str, name: str, node_id: str, arguments: dict[str, Any]) -> None:
        at = (self._clock() - self._began) * 1e6
        with self._lock:
            row = self._jobs.setdefault(job, len(self._jobs) + 1)
            record = {"ph": phase, "cat": "node", "name": name, "id": f"{row}.{node_id}", "pid": row, "tid": row}
            self._records.append({**record, "ts": round(at, 1), "args": arguments})

    def _names(self) -> list[dict[str, Any]]:
        return [
            {"ph": "M", "name": "process_name", "pid": row, "args": {"name": job}} for job, row in self._jobs.items()
        ]
