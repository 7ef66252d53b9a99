"""A submitted plan: the caller's side (`wait`, `is_done`) and what the scheduler knows of it."""

from collections import Counter
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.execution.calling.node_task import NodeTask
from sigmagraph.engine.execution.lanes.forecast import Forecast
from sigmagraph.engine.execution.lanes.policy import Claimant
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.execution.run import Run
from sigmagraph.engine.graph.node import Lane


@dataclass(eq=False)
class Ticket:
    """One job in a scheduler.

    `active` are its tasks not yet ended; `device_task` is the one in the device lane, between two steps or in one;
    `waiting` are those that wait for async work, `resumed` those whose wait is over and whose node is to be called now.
    `ahead` counts the classes of its device nodes that have not begun, `spent_s` is the device time of those that have
    ended. With `needs_alone` it ran out of memory beside others.
    """

    run: Run
    priority: int
    arrival: int
    is_withdrawn: bool = False
    device_task: NodeTask | None = None
    active: set[NodeTask] = field(default_factory=set)
    waiting: dict["Future[list[Any]]", NodeTask] = field(default_factory=dict)
    resumed: list[NodeTask] = field(default_factory=list)
    arrived_s: float = 0.0
    ahead: Counter[str] = field(default_factory=Counter)
    spent_s: float = 0.0
    needs_alone: bool = False
    future: "Future[RunResult]" = field(default_factory=Future)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self.future.done()

    @property
    def is_stopping(self) -> bool:
        """Whether its nodes should stop: it was withdrawn, or one of them failed."""
        return self.is_withdrawn or self.run.is_over

    @property
    def order(self) -> tuple[int, int]:
        """First come, first served within a priority."""
        return -self.priority, self.arrival

    def wait(self, timeout_s: float | None = None) -> RunResult:
        """The result, once it is there; raises TimeoutError after `timeout_s`."""
        return self.future.result(timeout_s)

    @property
    def waits_for_a_turn(self) -> bool:
        """Whether nothing of it is under way but, perhaps, a node between two steps on the device."""
        return self.active <= {self.device_task, *self.resumed}

    def wants_device(self) -> bool:
        """Whether it has work for the device lane, begun or ready."""
        return (
            self.device_task is not None
            or any(task.vertex.node.lane == "device" for task in self.resumed)
            or self.run.peek("device") is not None
        )

    @property
    def is_left(self) -> bool:
        """Whether nothing of it is under way, and no lane is to take any: whoever looks sees what became of it."""
        return not self.active and not self.resumed and not self.wants_device()

    def wants_host(self) -> bool:
        """Whether a node for the host lane is ready."""
        return any(task.vertex.node.lane == "host" for task in self.resumed) or self.run.peek("host") is not None

    def take_resumed(self, lane: Lane) -> NodeTask | None:
        """A task whose wait is over and that goes on in this lane."""
        task = next((waiting for waiting in self.resumed if waiting.vertex.node.lane == lane), None)
        if task is not None:
            self.resumed.remove(task)
        return task

    def claim(self, now: float, forecast: Forecast) -> Claimant:
        """What it brings forward to be next on the device."""
        task, remaining, spent = self.device_task, forecast.whole_s(self.ahead), self.spent_s
        if task is not None:
            remaining, spent = remaining + task.remaining_seconds(), spent + task.seconds
        return Claimant(self.priority, remaining, spent, now - self.arrived_s, self.arrival, self.run.is_over)

    def asks(self, key: Hashable) -> bool:
        """Whether its node on the device stands where it asks for work with this key."""
        return self.device_task is not None and self.device_task.asked is not None and self.device_task.asked.key == key

    def look_ahead(self) -> None:
        """Count the device nodes that are needed; the run has just begun."""
        self.ahead = Counter(self.run.needed("device"))

    def begun(self, task: NodeTask) -> None:
        """A device node begins: it is no longer ahead. Those that an expansion added were never counted."""
        self.device_task, kind = task, task.vertex.node.class_type
        self.ahead[kind] -= 1
        if self.ahead[kind] <= 0:
            del self.ahead[kind]

    def ended(self, task: NodeTask) -> None:
        """A task is over, or was given up."""
        self.active.discard(task)
        if self.device_task is task:
            self.device_task = None
            self.spent_s += task.seconds
