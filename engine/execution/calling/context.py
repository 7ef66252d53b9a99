"""Which node is being called right now: what library code that was handed nothing can ask.

Drivers set `CURRENT` before each step of a node; code of node packs reads it to report progress and notice a cancel.
"""

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.errors import Cancelled
from sigmagraph.engine.graph.results import Progress

QUIET_S = 5.0
"""Long work is reported so often: its job is known to live, and short work says nothing."""


def _nobody(progress: Progress) -> None:
    """Progress outside a run goes nowhere."""


@dataclass(slots=True)
class CallContext:
    """One node of one run. `graphs` counts the expansions the current call has begun, for the names of their nodes."""

    node_id: str = ""
    report: Callable[[Progress], None] = _nobody
    should_stop: Callable[[], bool] = lambda: False
    call_index: int = 0
    graphs: int = 0
    reported_at: float = field(default_factory=time.monotonic)

    def begin_call(self, index: int) -> None:
        """The next call over the input lists; raises `Cancelled` if the run is to stop."""
        self.check()
        self.call_index, self.graphs = index, 0

    def check(self) -> None:
        """Raise `Cancelled` if the run is to stop."""
        if self.should_stop():
            raise Cancelled(f"stopped on request in node {self.node_id}")

    def went_on(self, done: float, whole: float) -> None:
        """Long work has come so far; raises `Cancelled` if the run is to stop."""
        self.check()
        if time.monotonic() - self.reported_at > QUIET_S:
            self.reported_at = time.monotonic()
            self.report(Progress(done, whole))

    async def carry(self, work: Awaitable[Any]) -> Any:
        """The awaitable, in a context of its own call."""
        CURRENT.set(CallContext(self.node_id, self.report, self.should_stop, self.call_index))
        return await work


CURRENT: ContextVar[CallContext | None] = ContextVar("current node", default=None)


def current() -> CallContext:
    """The node being called, or a context that reports to nobody."""
    return CURRENT.get() or CallContext()
