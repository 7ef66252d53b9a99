"""How many jobs wait and run, counted as events are published: an answer that costs no look into the store."""

from collections import Counter
from collections.abc import Iterable

from sigmagraph.engine.jobs.events import Ended, JobEvent, Queued, Requeued, Started
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.protocol import Counts

__all__ = ["JobCounts"]


class JobCounts:
    """Jobs that are not over, by owner. On the event loop only; as exact as the log that it reads."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, bool]] = {}
        self._waiting: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._last: dict[str, int] = {}

    def begin(self, waiting: Iterable[Job], running: Iterable[Job] = ()) -> None:
        """Start with these; what was counted before is forgotten."""
        for counted in (self._open, self._waiting, self._running, self._last):
            counted.clear()
        for job in waiting:
            self._put(job.id, job.owner, is_running=False)
            self._last[job.id] = job.events
        for job in running:
            self._put(job.id, job.owner, is_running=True)
            self._last[job.id] = job.events

    def hear(self, event: JobEvent) -> None:
        """Count what it says."""
        match event.body:
            case Queued() | Requeued():
                self._put(event.job_id, event.owner, is_running=False)
            case Started():
                self._put(event.job_id, event.owner, is_running=True)
            case Ended():
                self._take(event.job_id)
            case _:
                pass
        if event.job_id in self._open:
            self._last[event.job_id] = event.number

    def last_events(self) -> dict[str, int]:
        """Of each job that is not over, as far as was heard, the number of the last event that was."""
        return dict(self._last)

    def last_event(self, job_id: str) -> int | None:
        """The number of the last event of a job that was heard; None where it is over, or nothing was."""
        return self._last.get(job_id)

    def counts(self, owner: str | None) -> Counts:
        """Of one owner, or of all."""
        if owner is None:
            return Counts(self._waiting.total(), self._running.total())
        return Counts(self._waiting[owner], self._running[owner])

    def _put(self, job_id: str, owner: str, *, is_running: bool) -> None:
        self._take(job_id)
        self._open[job_id] = owner, is_running
        (self._running if is_running else self._waiting)[owner] += 1

    def _take(self, job_id: str) -> None:
        owner, is_running = self._open.pop(job_id, ("", False))
        self._last.pop(job_id, None)
        if owner:
            counter = self._running if is_running else self._waiting
            counter[owner] -= 1
            if not counter[owner]:  # an owner without jobs takes no memory
                del counter[owner]
