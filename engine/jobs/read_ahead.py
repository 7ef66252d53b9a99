"""What the jobs near the front of the queue ask for, in memory.

Such a job is handed to its worker in the moment that its turn comes, while the row that says so is written: a device
does not wait for the disk. Those further back have theirs read when they come near; of one that was not read in time,
the row is written first.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.jobs.job import Request
from sigmagraph.engine.jobs.placement.job_placement import JobPlacement
from sigmagraph.engine.jobs.queue import Queue
from sigmagraph.engine.jobs.store.job_store import JobStore

__all__ = ["ReadAhead", "learn_files"]

LOG = logging.getLogger("sigmagraph.jobs")
READ_AT_ONCE = 256  # graphs that are in memory together


class ReadAhead:
    """Requests of the next jobs, about `size()` of them. They never change once a job is accepted."""

    def __init__(self, store: JobStore, queue: Queue, size: Callable[[], int]) -> None:
        self._store, self._queue, self._size = store, queue, size
        self._kept: dict[str, Request] = {}
        self._has_missed = False
        self._reading: asyncio.Task[None] | None = None

    def keep(self, job_id: str, request: Request) -> None:
        """A job waits that may be near."""
        if len(self._kept) < self._size():
            self._kept[job_id] = request

    def take(self, job_id: str) -> Request | None:
        """What a job asks for whose turn has come; None where that is not known yet."""
        request = self._kept.pop(job_id, None)
        self._has_missed = self._has_missed or request is None
        return request

    def forget(self, job_id: str) -> None:
        """A job does not wait any more."""
        self._kept.pop(job_id, None)

    def look(self) -> None:
        """Have more read where few are left, or where other jobs have come to be the next."""
        is_short = len(self._kept) * 2 < min(self._size(), len(self._queue))
        if (is_short or self._has_missed) and self._reading is None:
            self._has_missed = False
            near = self._queue.near(self._size())
            self._kept = {job_id: self._kept[job_id] for job_id in near if job_id in self._kept}
            wanted = [job_id for job_id in near if job_id not in self._kept]
            if wanted:
                self._reading = asyncio.create_task(self._read(wanted))

    async def _read(self, job_ids: list[str]) -> None:
        try:
            for job_id, request in (await self._store.requests(job_ids)).items():
                if job_id in self._queue:
                    self._kept[job_id] = request
        except EngineError as problem:  # their rows are written first, which tells whether the store is well
            LOG.warning("the next jobs are not read ahead: %s", problem)
        finally:
            self._reading = None


async def learn_files(store: JobStore, queue: Queue, placement: JobPlacement, job_ids: Sequence[str]) -> None:
    """Which weights the jobs of before a restart need; read before any of them begins, as their machine matters."""
    try:
        for at in range(0, len(job_ids), READ_AT_ONCE):
            for job_id, request in (await store.requests(job_ids[at : at + READ_AT_ONCE])).items():
                if job_id in queue:
                    placement.know_files(job_id, request.prompt)
    except EngineError as problem:
        LOG.error("waiting jobs begin on any machine: %s", problem)
