"""One node being worked on, step by step, on whatever thread a driver likes. Knows its run, and no other task.

A step ends where the node reports progress. Where it offers work that may be joined with that of others, it goes on
and does it itself; the step of a task that `gathers` ends there, and the next one goes on with the answer, if any.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import current_thread, main_thread
from typing import Any

from sigmagraph.engine.errors import Cancelled, OutOfMemory, is_out_of_memory
from sigmagraph.engine.execution.calling.calls import Pending
from sigmagraph.engine.execution.calling.context import CURRENT, CallContext
from sigmagraph.engine.execution.calling.instances import Instances
from sigmagraph.engine.execution.run import Run
from sigmagraph.engine.execution.vertex import Needs, Vertex, Work, work
from sigmagraph.engine.graph.results import Joinable, Progress, Row

ENOUGH_SAMPLES = 3
Around = Callable[[], AbstractContextManager[Any]]


class NodeTask:
    """The work of one node. `step` goes on to its next report, wait or end; `outcome` is there once it ended."""

    def __init__(
        self,
        run: Run,
        vertex: Vertex,
        instances: Instances,
        should_stop: Callable[[], bool],
        report: Callable[[Progress], None],
        clock: Callable[[], float] = time.perf_counter,
        gathers: bool = False,
    ) -> None:
        self.run, self.vertex, self.should_stop, self.report = run, vertex, should_stop, report
        self.arguments = run.values.arguments(vertex)
        self.seconds = 0.0
        self.pace_s = float("inf")
        self.usual_pace_s = float("inf")
        self._samples = 0
        self._paced_at = (0.0, 0.0)
        self.progress: Progress | None = None
        self.pending: Pending | None = None
        self.asked: Joinable | None = None
        self.gathers = gathers
        self._answers: list[Any] = []
        self.outcome: list[Row] | Needs | BaseException | None = None
        self._context = CallContext(vertex.id, report, should_stop)
        self._instances = instances
        self._clock = clock
        self._steps: Work | None = None

    def step(self, around: Around) -> None:
        """One step. Afterwards: `pending` is set, or `outcome` is, or there is more to do."""
        began = self._clock()
        CURRENT.set(self._context)
        try:
            with around():
                was_asked = self.asked is not None
                said = self._advance()
                while isinstance(said, Joinable) and not self.gathers:
                    said = self._go_on(None)
                if was_asked and isinstance(said, Progress):  # on to what it asks next: that costs little
                    self._note(said)
                    said = self._go_on(None)
            self._note(said)
        except StopIteration as end:
            self.outcome = end.value
        except KeyboardInterrupt as error:  # a user's, where node code is called on the main thread
            if current_thread() is main_thread():
                raise
            self.outcome = error
        except BaseException as error:  # noqa: BLE001  # what node code raises fails its run, never the lane
            self.outcome = error
        finally:
            self.seconds += self._clock() - began
            self._measure()

    def _note(self, said: object) -> None:
        """Where the node stands now."""
        match said:
            case Progress():
                self.progress = said
                self.report(said)
            case Joinable():
                self.asked = said
            case Pending():
                self.pending = said
            case _:
                raise TypeError(f"the node yielded {said!r}; expected Progress")

    def _advance(self) -> Progress | Pending | Joinable:
        """Cancels are thrown in where the node stands; before its first step there is nothing to stop."""
        self.asked = None
        if self._steps is None:
            self._context.check()
            node = self.vertex.node
            instance = self._instances.of(self.vertex.id, node)
            hidden = self.run.hidden.of(self.vertex, self._context)
            self._steps = work(node, instance, self.arguments, hidden, self._context)
        elif self.should_stop():
            return self._steps.throw(Cancelled(f"stopped on request in node {self.vertex.id}"))
        return self._go_on(self._answers.pop() if self._answers else None)

    def _go_on(self, answer: Any) -> Progress | Pending | Joinable:
        assert self._steps is not None
        return self._steps.send(answer)

    def answer(self, answer: Any, seconds: float) -> None:
        """What it asked for was done elsewhere, in so many seconds of its own; the next step goes on from there."""
        self._answers.append(answer)
        self.seconds += seconds

    def close(self) -> None:
        """Give up between two steps; the node may clean up."""
        if self._steps is not None:
            self._steps.close()

    @property
    def is_begun(self) -> bool:
        """Whether the node was called."""
        return self._steps is not None

    @property
    def is_out_of_memory(self) -> bool:
        """Whether it ended because the device or the host had no memory left."""
        return isinstance(self.outcome, BaseException) and is_out_of_memory(self.outcome)

    def remaining_seconds(self) -> float:
        """A guess: what is left of the progress, at the fastest pace so far; 0 while no pace is known.

        One measurement may be off by much on a busy machine, so the first few do not count as slower than usual.
        """
        if self.progress is None or self.pace_s == float("inf"):
            return 0.0
        pace = self.pace_s if self._samples >= ENOUGH_SAMPLES else min(self.pace_s, self.usual_pace_s)
        return pace * max(0.0, self.progress.maximum - self.progress.value)

    def _measure(self) -> None:
        """Seconds per unit of progress; a report that advances nothing says nothing about pace."""
        seconds, value = self._paced_at
        if self.progress is not None and self.progress.value > value:
            self.pace_s = min(self.pace_s, (self.seconds - seconds) / (self.progress.value - value))
            self._paced_at = self.seconds, self.progress.value
            self._samples += 1

    def resume(self, results: list[Any]) -> None:
        """What it waited for is there."""
        assert self.pending is not None
        self.pending.results = results
        self.pending = None

    def report_end(self) -> None:
        """Tell the run how it ended; what the run cannot read of what the node returned is the node's failure."""
        outcome = self.outcome
        try:
            if isinstance(outcome, BaseException):
                self.run.failed(self.vertex, self._named(outcome), self.arguments)
            elif outcome is not None:
                self.run.finished(self.vertex, outcome, self.seconds * 1e3)
        except Exception as error:  # noqa: BLE001  # a ui that is no object, a list output that is no list, and the like
            self.run.failed(self.vertex, error, self.arguments)

    def _named(self, error: BaseException) -> BaseException:
        """The engine's own error for whatever a library raises when memory is gone; others as they are."""
        if not self.is_out_of_memory or isinstance(error, OutOfMemory):
            return error
        named = OutOfMemory(f"not enough memory, not even after freeing what could be freed: {error}")
        named.__cause__ = error
        return named
