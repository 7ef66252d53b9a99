"""`JobStore`: the durable half of the service. Each method is one transaction, or one read; see transitions.py.

The row is on disk when a method returns; events are published in the order of commits.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import delete as delete_rows
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from sigmagraph.engine.errors import StoreFailed, UnknownJob
from sigmagraph.engine.jobs.artifacts import Artifact
from sigmagraph.engine.jobs.events import Body, Cause, JobEvent
from sigmagraph.engine.jobs.job import (
    Failure,
    Idempotency,
    Job,
    JobQuery,
    MadeFile,
    Outcome,
    Page,
    Request,
    State,
    Submission,
)
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store import log, queries, retention, transitions
from sigmagraph.engine.jobs.store.database import Database, Posted, Tx
from sigmagraph.engine.jobs.store.recent import RecentJobs
from sigmagraph.engine.jobs.store.single_rows import RowQuery
from sigmagraph.engine.jobs.store.tables import facts, jobs
from sigmagraph.engine.units import DAY_S

__all__ = ["Clock", "JobStore"]

LOG = logging.getLogger("sigmagraph.jobs")
Clock = Callable[[], float]
BY_ID = RowQuery(jobs, "id")
T = TypeVar("T")


def _nobody(events: Sequence[JobEvent]) -> None:
    """Publish to nobody."""


class JobStore:
    """Jobs on disk. `publish` gets every stored event after its commit, on the event loop that opened the store."""

    def __init__(
        self,
        settings: StoreSettings,
        publish: Callable[[Sequence[JobEvent]], None] = _nobody,
        *,
        idempotency_s: float = DAY_S,
        clock: Clock = time.time,
    ) -> None:
        self._publish_on = publish
        self.database = Database(settings, self._publish)
        self._recent = RecentJobs(lambda job_id: self.database.read(partial(queries.light, job_id=job_id)))
        self.clock, self._idempotency_s = clock, idempotency_s

    async def open(self) -> None:
        """Take the database; raises `StoreInUse` or `StoreFailed`."""
        await self.database.open()

    async def close(self, deadline_s: float = 10.0) -> None:
        """Write what is waiting and let go."""
        await self.database.close(deadline_s)

    # -- one job's way -------------------------------------------------------------------------------------------

    def is_new(self, job_id: str) -> bool:
        """Whether it is sure, without waiting, that no job has this id."""
        return self.database.lacks(BY_ID, job_id)

    async def submit(self, submission: Submission, request: Request, worker: str | None = None) -> tuple[Job, bool]:
        """Accept a job, as begun where a worker is named; the job, and whether an equal request had made it before."""
        return await self.stored(self.post(submission, request, worker))

    def post(self, submission: Submission, request: Request, worker: str | None = None) -> Posted[tuple[Job, bool]]:
        """Have a job accepted; it is on disk when `stored` returns."""
        at = self.clock()

        def work(tx: Tx) -> tuple[Job, bool]:
            known = _repeat(tx, submission, at - self._idempotency_s)
            return (
                (known, True) if known is not None else (transitions.create(tx, submission, request, at, worker), False)
            )

        return self.database.post(work, is_sure=False)

    async def stored(self, posted: Posted[tuple[Job, bool]]) -> tuple[Job, bool]:
        """Once more where another server's job took the id or the key just now: it is there to be found."""
        try:
            return await posted.future
        except StoreFailed as problem:
            if not self.has_peers or not isinstance(problem.__cause__, IntegrityError):
                raise
            return await self.database.write(posted.function)

    @property
    def has_peers(self) -> bool:
        """Whether other servers work on this database, too."""
        return self.database.place is not None

    def named(self, worker: str) -> str:
        """A worker of this server as the rows of its jobs name it."""
        return worker if self.database.place is None else f"{self.database.place.number}/{worker}"

    async def repeat(self, owner: str, key: Idempotency) -> Job | None:
        """The job an equal request made before, if any; raises `IdempotencyConflict`."""
        since = self.clock() - self._idempotency_s
        return await self.database.write(partial(transitions.find_repeat, owner=owner, key=key, since=since))

    async def begin(self, job_id: str, worker: str) -> Job:
        """The next attempt starts; the job with its request."""
        return await self.database.write(partial(transitions.begin, job_id=job_id, worker=worker, at=self.clock()))

    async def append(self, job_id: str, bodies: Sequence[Body]) -> None:
        """More of a run's events."""
        at = self.clock()
        await self.database.write(lambda tx: log.append(tx, job_id, bodies, at), is_sure=True)

    async def end(
        self,
        job_id: str,
        to: State,
        *,
        failure: Failure | None = None,
        outcome: Outcome | None = None,
        tail: Sequence[Body] = (),
    ) -> Job:
        """The end of a job."""
        finish = partial(
            transitions.end, job_id=job_id, to=to, at=self.clock(), failure=failure, outcome=outcome, tail=tail
        )
        return await self.database.write(finish, is_sure=True)

    async def lose(
        self,
        job_id: str,
        reason: str,
        cause: Cause = Cause.SERVER,
        max_deaths: int = 1,
        attempt: int | None = None,
    ) -> Job:
        """An attempt is lost: back to the queue, or the end."""
        given: dict[str, Any] = {
            "reason": reason,
            "at": self.clock(),
            "cause": cause,
            "max_deaths": max_deaths,
            "attempt": attempt,
        }
        lose = partial(transitions.lose, job_id=job_id, **given)
        return await self.database.write(lose, is_sure=True)

    async def request_cancel(self, job_id: str, owner: str | None = None) -> Job:
        """End a queued job, mark a running one."""
        cancel = partial(transitions.request_cancel, job_id=job_id, owner=owner, at=self.clock())
        return await self._change(job_id, cancel)

    async def place(
        self, job_id: str, owner: str | None, number: float | None, front: bool, priority: int | None
    ) -> Job:
        """Another place in the queue."""
        return await self._change(job_id, lambda tx: transitions.place(tx, job_id, owner, number, front, priority))

    # -- lists ---------------------------------------------------------------------------------------------------

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job, whole; raises `UnknownJob`."""
        return await self.database.read(partial(queries.get, job_id=job_id, owner=owner))

    async def look(self, job_id: str, owner: str | None = None) -> Job:
        """One job without its request; from memory where nothing happened to it since it was last looked at."""
        job = await self._recent.get(job_id)
        if owner is not None and job.owner != owner:
            raise UnknownJob(job_id)
        return job

    async def find(self, query: JobQuery) -> Page:
        """One page."""
        return await self.database.read(partial(queries.page, query=query))

    async def ids(self, query: JobQuery) -> Sequence[str]:
        """The ids of one page, which cost next to nothing however large the jobs are."""
        return await self.database.read(partial(queries.ids, query=query))

    async def by_state(self, state: State, owner: str | None = None) -> Sequence[Job]:
        """All jobs in one state, in the order they came, without their requests."""
        return await self.database.read(partial(queries.by_state, state=state, owner=owner))

    async def requests(self, job_ids: Sequence[str]) -> Mapping[str, Request]:
        """What these jobs ask for, by id; one that is gone is left out."""
        return await self.database.read(partial(queries.requests, job_ids=job_ids))

    async def owing(self) -> set[str]:
        """Open jobs whose end is owed to a webhook."""
        return await self.database.read(queries.owing)

    async def events(self, job: Job, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Stored events above `after`."""
        return await self.database.read(partial(log.read, job_id=job.id, owner=job.owner, after=after, limit=limit))

    async def owner_of_file(self, kind: str, subfolder: str, filename: str) -> str | None:
        """Who made a file last."""
        return await self.database.read(partial(log.owner_of_file, kind=kind, subfolder=subfolder, filename=filename))

    async def files_made(self, owner: str, after: int, limit: int) -> Sequence[MadeFile]:
        """Files of an owner's jobs, stored after that number."""
        return await self.database.read(partial(log.files_made, owner=owner, after=after, limit=limit))

    # -- time ----------------------------------------------------------------------------------------------------

    async def expire(self) -> list[str]:
        """End waiting jobs whose time is up."""
        return await self.database.write(partial(retention.expire, at=self.clock()))

    async def forget_old(self, keep_s: float, keep_jobs: int) -> int:
        """Delete ended jobs nobody needs to remember."""
        at, idempotency_s = self.clock(), self._idempotency_s
        gone = await self.database.write(lambda tx: retention.forget_old(tx, at, keep_s, keep_jobs, idempotency_s))
        self._recent.clear()
        return gone

    async def forget_files(self, keep_s: float, delete: Callable[[Artifact], None]) -> int:
        """Delete files older than that, then their rows; says how many. What cannot be deleted is tried again."""
        before, gone = self.clock() - keep_s, list[int]()
        for number, artifact in await self.database.read(lambda connection: retention.old_files(connection, before)):
            try:
                await asyncio.to_thread(delete, artifact)
            except Exception as problem:  # noqa: BLE001  # whatever its store raises, the others are deleted
                LOG.warning("%s is not deleted: %s", artifact, problem)
            else:
                gone.append(number)
        if gone:
            await self.database.write(lambda tx: retention.forget_files(tx, gone))
        return len(gone)

    async def forget(self, job_id: str, owner: str | None = None) -> None:
        """Delete one ended job."""
        await self._change(job_id, partial(retention.forget, job_id=job_id, owner=owner))

    async def forget_ended(self, owner: str | None = None) -> int:
        """Delete all ended jobs."""
        gone = await self.database.write(partial(retention.forget_ended, owner=owner))
        self._recent.clear()
        return gone

    # -- facts ---------------------------------------------------------------------------------------------------

    async def fact(self, name: str) -> Any:
        """A value kept across restarts, or None."""
        query = select(facts.c.value).where(facts.c.name == name)
        return await self.database.read(lambda connection: connection.execute(query).scalar_one_or_none())

    async def remember(self, name: str, value: Any) -> None:
        """Keep a value."""

        def work(tx: Tx) -> None:
            tx.connection.execute(delete_rows(facts).where(facts.c.name == name))
            tx.connection.execute(insert(facts).values(name=name, value=value))
            tx.news.append(("fact", name))

        await self.database.write(work)

    # -- inside --------------------------------------------------------------------------------------------------

    def hear(self, events: Sequence[JobEvent]) -> None:
        """What another server committed."""
        self._publish(events, [])

    def changed(self, job_id: str | None) -> None:
        """Another server changed a job's row, or who knows which."""
        if job_id is None:
            self._recent.clear()
        else:
            self._recent.changed([job_id])

    def _publish(self, events: Sequence[JobEvent], ended: Sequence[Job]) -> None:
        """What is remembered of these jobs is old, before anybody is told why; who asks for an end need not read it."""
        self._recent.changed(event.job_id for event in events)
        for job in ended:
            self._recent.keep(job)
        self._publish_on(events)

    async def _change(self, job_id: str, function: Callable[[Tx], T]) -> T:
        """A change that is not an event."""
        try:
            return await self.database.write(function)
        finally:
            self._recent.changed([job_id])


def _repeat(tx: Tx, submission: Submission, since: float) -> Job | None:
    key = submission.idempotency
    return transitions.find_repeat(tx, submission.owner, key, since) if key is not None else None
