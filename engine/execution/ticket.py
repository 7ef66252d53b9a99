"""A submitted plan: the caller's side (`wait`, `is_done`) and what the scheduler knows of it."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from engine.execution.policy import Claimant
from engine.execution.result import RunResult
from engine.execution.state import Run
from engine.execution.task import Task


@dataclass(eq=False)
class Ticket:
    """One job in a scheduler.

    `active` are its tasks not yet ended; `device_task` is the one in the device lane, between two steps or in one;
    `waiting` are those that wait for async work.
    """

    run: Run
    priority: int
    arrival: int
    is_cancelled: bool = False
    device_task: Task | None = None
    active: set[Task] = field(default_factory=set)
    waiting: dict["Future[list[Any]]", Task] = field(default_factory=dict)
    arrived_s: float = 0.0
    future: "Future[RunResult]" = field(default_factory=Future)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self.future.done()

    @property
    def is_stopping(self) -> bool:
        """Whether its nodes should stop: it was cancelled, or one of them failed."""
        return self.is_cancelled or self.run.is_over

    @property
    def order(self) -> tuple[int, int]:
        """First come, first served within a priority."""
        return -self.priority, self.arrival

    def wait(self, timeout_s: float | None = None) -> RunResult:
        """The result, once it is there; raises TimeoutError after `timeout_s`."""
        return self.future.result(timeout_s)

    def wants_device(self) -> bool:
        """Whether it has work for the device lane, begun or ready."""
        return self.device_task is not None or self.run.peek("device") is not None

    def claim(self, now: float) -> Claimant:
        """What it brings forward to be next on the device."""
        remaining = self.device_task.remaining_seconds() if self.device_task is not None else 0.0
        return Claimant(self.priority, remaining, now - self.arrived_s, self.arrival, self.run.is_over)
