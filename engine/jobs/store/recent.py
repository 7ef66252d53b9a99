"""Jobs that were asked for lately, kept until something happens to them: who polls does not read the database again.

On the event loop only. What a reading brings is kept only if nothing happened to the job meanwhile.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from sigmagraph.engine.jobs.job import Job

__all__ = ["RecentJobs"]

MOST = 1000
LARGEST = 256
"""Node reports of a job that is kept: a few kilobytes."""


class RecentJobs:
    """Jobs without their requests, by id; those asked for longest ago go first."""

    def __init__(self, read: Callable[[str], Awaitable[Job]], most: int = MOST) -> None:
        self._read, self._most = read, most
        self._kept: OrderedDict[str, Job] = OrderedDict()
        self._reading: dict[str, object] = {}

    async def get(self, job_id: str) -> Job:
        """The job as it is now."""
        job = self._kept.get(job_id)
        if job is not None:
            self._kept.move_to_end(job_id)
            return job
        mine = self._reading[job_id] = object()
        try:
            job = await self._read(job_id)
        finally:
            is_current = self._reading.get(job_id) is mine
            if is_current:
                del self._reading[job_id]
        if is_current:
            self.keep(job)
        return job

    def keep(self, job: Job) -> None:
        """The job is so now."""
        if job.outcome is None or len(job.outcome.nodes) <= LARGEST:
            self._kept[job.id] = job
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def changed(self, job_ids: Iterable[str]) -> None:
        """Something happened to these."""
        for job_id in job_ids:
            self._kept.pop(job_id, None)
            self._reading.pop(job_id, None)

    def clear(self) -> None:
        """Something happened to who knows which."""
        self._kept.clear()
        self._reading.clear()
