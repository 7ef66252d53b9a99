"""What a server that was killed left behind, put in order before anything new begins."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from sigmagraph.engine.errors import IllegalMove, UnknownJob
from sigmagraph.engine.jobs.job import Job, State
from sigmagraph.engine.jobs.store.fronts import front_of
from sigmagraph.engine.jobs.store.job_store import JobStore

__all__ = ["give_up", "recover"]

REASON = "the server was stopped while it ran"


async def recover(store: JobStore) -> Sequence[Job]:
    """Give up the attempts that were running, and return everything that waits now, oldest first.

    The server that ran them is gone (the store is ours alone) and took its workers with it, so each is lost for sure:
    it is queued as the next attempt, or ends where it was to be cancelled. Nothing counts against the job.
    Where servers share the store, the jobs of others that live are left alone (`give_up`).
    """
    place = store.database.place
    living = await asyncio.to_thread(place.living) - {place.number} if place is not None else set()
    await give_up(store, living)
    return await store.by_state(State.QUEUED)


async def give_up(store: JobStore, living: Collection[int], mine: Collection[str] = ()) -> Sequence[Job]:
    """Have the jobs wait again that no living server runs; those are returned. `mine` this server runs for sure."""
    lost = []
    for job in await store.by_state(State.RUNNING):
        if job.id not in mine and front_of(job.worker) not in living:
            with suppress(IllegalMove, UnknownJob):  # another server was first, or it had ended
                lost.append(await store.lose(job.id, REASON, attempt=job.attempt))
    return lost
