"""`execute`: a plan from start to end on the calling thread. Only async nodes advance beside it."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.errors import Cancelled
from engine.execution import events
from engine.execution.cache import MemoryCache
from engine.execution.calls import Pending
from engine.execution.context import CURRENT, CallContext
from engine.execution.instances import Instances
from engine.execution.loop import AsyncLoop
from engine.execution.result import RunResult
from engine.execution.state import Emit, Run
from engine.execution.vertex import Vertex, Work, work
from engine.graph.node import Services
from engine.graph.plan import Plan
from engine.graph.results import Progress

POLL_S = 0.02


@dataclass(slots=True)
class _Job:
    """One node being worked on; `spent` is the time of steps before it had to wait."""

    vertex: Vertex
    steps: Work
    context: CallContext
    spent: float = 0.0
    pending: Pending | None = None


def execute(
    plan: Plan,
    services: Services | None = None,
    cache: MemoryCache | None = None,
    emit: Emit = lambda event: None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    extra_data: Mapping[str, Any] | None = None,
    instances: Instances | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> RunResult:
    """Run a plan; returns what happened, an error included, and raises only what is no node's fault.

    `cancelled` is asked before each node and at each progress report. `around` is entered round every step of a
    node, `torch.inference_mode` say.
    """
    run = Run(plan, services, cache if cache is not None else MemoryCache(), emit, extra_data or {})
    return _Inline(run, cancelled, instances or Instances(), around).to_the_end()


class _Inline:
    """The driver for one run on one thread."""

    def __init__(
        self,
        run: Run,
        cancelled: Callable[[], bool],
        instances: Instances,
        around: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.run, self.cancelled, self.instances, self.around = run, cancelled, instances, around
        self.loop = AsyncLoop()
        self.parked: dict[Future[list[Any]], _Job] = {}

    def to_the_end(self) -> RunResult:
        run = self.run
        run.start()
        while not run.is_over:
            if self.cancelled():
                run.cancel()
            elif (vertex := run.take()) is not None:
                self._begin(vertex)
            elif self.parked:
                self._collect()
        for future, job in self.parked.items():
            future.cancel()
            job.steps.close()
        self.loop.close()
        if run.error is None:
            run.emit(events.RunSucceeded())
        return run.result()

    def _begin(self, vertex: Vertex) -> None:
        context = CallContext(vertex.id, partial(self._report, vertex), self.cancelled)
        instance = self.instances.of(vertex.id, vertex.node)
        steps = work(vertex.node, instance, self.run.arguments(vertex), self.run.hidden.of(vertex), context)
        self._advance(_Job(vertex, steps, context))

    def _advance(self, job: "_Job") -> None:
        """Step a node's work until it is done, fails or waits."""
        began = time.perf_counter()
        vertex, steps = job.vertex, job.steps
        try:
            while True:
                CURRENT.set(job.context)
                with self.around():
                    said = next(steps)
                if isinstance(said, Pending):
                    job.spent += time.perf_counter() - began
                    job.pending = said
                    self.parked[self.loop.submit(said.work)] = job
                    return
                self._report(vertex, said)
                if self.cancelled():
                    steps.throw(Cancelled("stopped on request"))
        except StopIteration as end:
            self.run.finished(vertex, end.value, (time.perf_counter() - began + job.spent) * 1e3)
        except Exception as error:  # noqa: BLE001  # whatever node code raises fails this run, never the worker
            self.run.failed(vertex, error, self.run.arguments(vertex))

    def _report(self, vertex: Vertex, said: Progress) -> None:
        self.run.emit(events.NodeProgress(vertex.id, said.value, said.maximum, said.preview))

    def _collect(self) -> None:
        """Wait a moment for async nodes, and go on with those that are done."""
        done, _ = wait(self.parked, POLL_S, FIRST_COMPLETED)
        for future in done:
            job = self.parked.pop(future)
            error = future.exception()
            if error is not None:
                self.run.failed(job.vertex, error, {})
            elif job.pending is not None:
                job.pending.results = future.result()
                self._advance(job)
