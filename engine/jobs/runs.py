"""Running jobs as the dispatcher holds them, and how what they say is written: the loop appends, the writer takes."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial

from engine.jobs import log, moves
from engine.jobs.database import Tx
from engine.jobs.events import Body
from engine.jobs.job import Job
from engine.jobs.worker import Finished, Worker

__all__ = ["End", "Running", "Said"]


@dataclass(slots=True)
class Running:
    """One task on a worker. `said` is what it said and the writer has not taken yet."""

    job: Job
    worker: Worker
    heard_at: float
    cancel_at: float | None = None
    said: deque[tuple[float, Body]] = field(default_factory=deque)
    is_posted: bool = False

    def take(self) -> list[tuple[float, Body]]:
        """What it said since, once."""
        taken = []
        while self.said:
            taken.append(self.said.popleft())
        return taken


class Said:
    """Writes what a run said until the writer comes to it: one commit for many events when there are many."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._taken: list[tuple[float, Body]] = []

    def __call__(self, tx: Tx) -> None:
        self._running.is_posted = False  # before taking: what comes now is posted anew
        self._taken += self._running.take()
        if self._taken:  # all of them again if the commit has to be tried again
            log.append_all(tx, self._running.job.id, self._taken)


class End:
    """Writes the end of an attempt together with what the run said last."""

    def __init__(self, running: Running, finished: Finished, at: float) -> None:
        self._running = running
        self._taken: list[tuple[float, Body]] = []
        self._move = partial(
            moves.end,
            job_id=running.job.id,
            to=finished.state,
            at=at,
            failure=finished.failure,
            outcome=finished.outcome,
            tail=finished.tail,
        )

    def __call__(self, tx: Tx) -> Job:
        self._taken += self._running.take()
        return self._move(tx, said=self._taken)
