"""`execute`: a plan from start to end on the calling thread. Only async nodes advance beside it."""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from functools import partial
from threading import Event
from typing import Any

from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore, as_store
from sigmagraph.engine.execution.calling.instances import Instances
from sigmagraph.engine.execution.calling.node_task import Around, NodeTask
from sigmagraph.engine.execution.lanes.async_loop import AsyncLoop
from sigmagraph.engine.execution.report import Emit
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.execution.run import Run
from sigmagraph.engine.execution.vertex import Vertex
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.graph.plan import Plan
from sigmagraph.engine.graph.results import Progress

POLL_S = 0.02


def execute(
    plan: Plan,
    services: Services | None = None,
    cache: MemoryCache | ResultStore | None = None,
    emit: Emit = lambda event: None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    extra_data: Mapping[str, Any] | None = None,
    instances: Instances | None = None,
    around: Around = nullcontext,
    free: Callable[[], None] = lambda: None,
) -> RunResult:
    """Run a plan; returns what happened, an error included, and raises only what is no node's fault.

    `cancelled` is asked before each node and at each progress report. `around` is entered round every step of a
    node, `torch.inference_mode` say; `free` is called when memory ran out, before the one retry.
    """
    store = as_store(cache)
    woken = Event()
    run = Run(plan, services, store, emit, extra_data or {}, woken.set)
    kept = instances if instances is not None else Instances()
    if len(kept):
        kept.keep_only({(i, vertex.node.class_type) for i, vertex in plan.nodes.items()})
    driver = _Inline(run, cancelled, kept, around, woken)
    driver.free = free
    result = driver.to_the_end()
    store.flush()
    return result


class _Inline:
    """The driver for one run on one thread."""

    def __init__(
        self, run: Run, cancelled: Callable[[], bool], instances: Instances, around: Around, woken: Event
    ) -> None:
        self.run, self.cancelled, self.instances, self.around, self.woken = run, cancelled, instances, around, woken
        self.free: Callable[[], None] = lambda: None
        self.loop = AsyncLoop()
        self.waiting: dict[Future[list[Any]], NodeTask] = {}

    def to_the_end(self) -> RunResult:
        """Run until nothing is left to do."""
        try:
            self._work()
        finally:
            for future, task in self.waiting.items():
                future.cancel()
                task.close()
            self.run.unclaim()
            self.loop.close()
        if self.run.error is None:
            self.run.emit(events.RunSucceeded())
        return self.run.result()

    def _work(self) -> None:
        run = self.run
        run.start()
        while not run.is_over:
            if self.cancelled():
                run.give_up()
            elif (vertex := run.take()) is not None:
                self._advance(NodeTask(run, vertex, self.instances, self.cancelled, partial(self._report, vertex)))
            elif self.waiting:
                self._collect()
            elif run.is_parked and self.woken.wait(POLL_S):
                self.woken.clear()

    def _advance(self, task: NodeTask) -> None:
        """Step a node's work until it is done, fails or waits."""
        while task.outcome is None:
            task.step(self.around)
            if task.pending is not None:
                self.waiting[self.loop.submit(task.pending.work)] = task
                return
        if task.is_out_of_memory and task.vertex.attempts == 0:
            self.run.store.clear()
            self.free()
            self.run.again(task.vertex)
            return
        task.report_end()

    def _report(self, vertex: Vertex, said: Progress) -> None:
        self.run.emit(events.NodeProgress(vertex.id, said.value, said.maximum, said.preview))

    def _collect(self) -> None:
        """Wait a moment for async nodes, and go on with those that are done."""
        done, _ = wait(self.waiting, POLL_S, FIRST_COMPLETED)
        for future in done:
            task = self.waiting.pop(future)
            error = future.exception()
            if error is not None:
                self.run.failed(task.vertex, error, {})
            else:
                task.resume(future.result())
                self._advance(task)
