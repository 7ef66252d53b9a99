"""One node being worked on, step by step, on whatever thread a driver likes. Knows its run, and no other task."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from engine.errors import Cancelled, OutOfMemory
from engine.execution.calls import Pending
from engine.execution.context import CURRENT, CallContext
from engine.execution.instances import Instances
from engine.execution.state import Run
from engine.execution.vertex import Needs, Vertex, work
from engine.graph.results import Progress, Row

Around = Callable[[], AbstractContextManager[Any]]


class Task:
    """The work of one node. `step` goes on to its next report, wait or end; `outcome` is there once it ended."""

    def __init__(
        self,
        run: Run,
        vertex: Vertex,
        instances: Instances,
        is_cancelled: Callable[[], bool],
        report: Callable[[Progress], None],
    ) -> None:
        self.run, self.vertex, self.is_cancelled, self.report = run, vertex, is_cancelled, report
        self.arguments = run.arguments(vertex)
        context = CallContext(vertex.id, report, is_cancelled)
        instance = instances.of(vertex.id, vertex.node)
        self.steps = work(vertex.node, instance, self.arguments, run.hidden.of(vertex), context)
        self.context = context
        self.seconds = 0.0
        self.step_seconds = 0.0
        self.progress: Progress | None = None
        self.pending: Pending | None = None
        self.outcome: list[Row] | Needs | BaseException | None = None

    def step(self, around: Around) -> None:
        """One step. Afterwards: `pending` is set, or `outcome` is, or there is more to do."""
        began = time.perf_counter()
        CURRENT.set(self.context)
        try:
            with around():
                said = self.steps.throw(self._cancelled()) if self._is_stopping() else next(self.steps)
            if isinstance(said, Pending):
                self.pending = said
            else:
                self.progress = said
                self.report(said)
        except StopIteration as end:
            self.outcome = end.value
        except (Exception, SystemExit) as error:  # noqa: BLE001  # what node code raises fails this run, never the worker
            self.outcome = error
        finally:
            self.step_seconds = time.perf_counter() - began
            self.seconds += self.step_seconds

    @property
    def is_out_of_memory(self) -> bool:
        """Whether it ended because the device or the host had no memory left."""
        error = self.outcome
        return isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError"

    def remaining_seconds(self) -> float:
        """A guess from the progress so far: steps left, at the pace of the steps behind; 0 while nothing is known."""
        if self.progress is None or self.progress.value <= 0:
            return 0.0
        left = max(0.0, self.progress.maximum - self.progress.value)
        return self.seconds * left / self.progress.value

    def resume(self, results: list[Any]) -> None:
        """What it waited for is there."""
        assert self.pending is not None
        self.pending.results = results
        self.pending = None

    def report_end(self) -> None:
        """Tell the run how it ended."""
        outcome = self.outcome
        if isinstance(outcome, BaseException):
            self.run.failed(self.vertex, outcome, self.arguments)
        elif outcome is not None:
            self.run.finished(self.vertex, outcome, self.seconds * 1e3)

    def _is_stopping(self) -> bool:
        """Cancels are thrown in where the node reported progress; before its first step it has nothing to clean up."""
        return self.progress is not None and self.is_cancelled()

    def _cancelled(self) -> Cancelled:
        return Cancelled(f"stopped on request in node {self.vertex.id}")
