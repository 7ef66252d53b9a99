"""What a server that was killed left behind, put in order before anything new begins."""

from collections.abc import Sequence

from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.store.job_store import JobStore

__all__ = ["recover"]

REASON = "the server was stopped while it ran"


async def recover(store: JobStore) -> Sequence[Job]:
    """Give up the attempts that were running, and return everything that waits now, oldest first.

    The server that ran them is gone (the store is ours alone) and took its workers with it, so each is lost for sure:
    it is queued as the next attempt, or ends where it was to be cancelled. Nothing counts against the job.
    """
    for job in await store.by_state(State.RUNNING):
        await store.lose(job.id, REASON)
    return await store.by_state(State.QUEUED)
