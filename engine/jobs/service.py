"""`JobService`: the one job service, put together. Every protocol is an adapter over it (see protocol.py).

A cancel goes down six hops. Each keeps what it needs to know of it, under a name of its own:

    JobService.cancel
      |   JobStore.request_cancel: the row says so, and a killed server does not run the job again (`cancel_requested`)
    Dispatcher.tell_to_stop
      |   since when: a worker that has not stopped it by the deadline is killed (`Running.told_to_stop_at`)
    Worker.stop_job
      |   over the socket, where there is one
    Runner.stop_job
      |   the id, because the job may not be planned so far (`Runner._to_stop`)
    Scheduler.withdraw
      |   nodes read it at their next report, async work is cancelled (`Ticket.is_withdrawn`)
    Run.give_up
          the run is over, with `Cancelled` as its error (`Run.error`)

A job that waits ends with the first of them.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sigmagraph.engine.errors import BadValue, IllegalMove, NotAccepting, QueueShareUsed, StoreFailed, WorkerLost
from sigmagraph.engine.graph.node import Node, Services
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.artifacts import Artifacts, keep_outputs
from sigmagraph.engine.jobs.billing.accounts import Accounts
from sigmagraph.engine.jobs.broadcast import Broadcast
from sigmagraph.engine.jobs.check import Checker
from sigmagraph.engine.jobs.counts import JobCounts
from sigmagraph.engine.jobs.dispatch import Dispatcher
from sigmagraph.engine.jobs.events import JobEvent, is_last
from sigmagraph.engine.jobs.job import (
    LARGEST,
    LOCAL,
    Accepted,
    Job,
    JobQuery,
    MadeFile,
    Outcome,
    Page,
    Request,
    State,
    Submission,
)
from sigmagraph.engine.jobs.peers import PAUSED, Alone, Peers
from sigmagraph.engine.jobs.protocol import Checked, Counts, Listener, WorkerStatus
from sigmagraph.engine.jobs.recover import recover
from sigmagraph.engine.jobs.runs import Early
from sigmagraph.engine.jobs.settings import JobSettings
from sigmagraph.engine.jobs.store.database import Posted
from sigmagraph.engine.jobs.store.job_store import Clock, JobStore
from sigmagraph.engine.jobs.store.rows import inserted, job_of
from sigmagraph.engine.jobs.store.transitions import begun_at_once
from sigmagraph.engine.jobs.webhooks.delivery import Delivery
from sigmagraph.engine.jobs.webhooks.webhooks import Post, Webhooks, deliveries_of
from sigmagraph.engine.jobs.workers.worker import Fleet, Worker

__all__ = ["JobService"]

LOG = logging.getLogger("sigmagraph.jobs")
FREE_S = 30.0
GONE_S = 0.05
"""So long after its row is written, what happens to a job is told though nobody was there to be answered."""
ANSWER_S = 0.0004
"""So much earlier than anything of its run is told a submission is answered: clients begin to listen once they have
the answer. What is told then is being written meanwhile."""


class JobService:
    """Jobs from submission to end, across restarts. Make it and use it on one event loop.

    `services` gives an owner's folders, for lists of files in validation.
    """

    def __init__(
        self,
        settings: JobSettings,
        workers: Sequence[Worker],
        services: Callable[[str], Services | None] = lambda owner: None,
        *,
        clock: Clock = time.time,
        fleet: Fleet | None = None,
    ) -> None:
        self.settings = settings
        self._broadcast, self._counts = Broadcast(), JobCounts()
        self.store = JobStore(settings.store, self._publish, idempotency_s=settings.idempotency_s, clock=clock)
        self.accounts = Accounts(self.store)
        self._workers = list(workers)
        self._checker = Checker(self._workers, services, settings.check_deadline_s, settings.step_deadline_s)
        self.artifacts = Artifacts(settings.artifacts_url) if settings.artifacts_url is not None else None
        archive = partial(_keep, self.artifacts, services) if self.artifacts is not None else None
        self._dispatcher = Dispatcher(
            self.store, self._broadcast, self._workers, settings, self._checker.declare, archive
        )
        self._fleet = fleet
        self._is_accepting = False
        self._storing: set[asyncio.Task[tuple[Job, bool]]] = set()
        self._owing: set[str] = set()  # open jobs whose end is to be told to a webhook
        self._webhooks: Webhooks | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._learning: asyncio.Task[None] | None = None
        place = self.store.database.place
        self._peers = None
        if place is not None:
            parts = self._dispatcher, self._broadcast, self._learnt, self._counts
            self._peers = Peers(self.store, place, *parts)

    @property
    def is_paused(self) -> bool:
        return self._dispatcher.is_paused

    @property
    def is_accepting(self) -> bool:
        return self._is_accepting

    async def start(self) -> None:
        if self._fleet is not None:
            await self._fleet.connect()
        await self.store.open()
        if self._peers is not None:
            await self._peers.listen()
        waiting = await recover(self.store)
        self._counts.begin(waiting, await self.store.by_state(State.RUNNING))
        self._owing = await self.store.owing()
        self._dispatcher.is_paused = bool(await self.store.fact(PAUSED))
        self._dispatcher.start(waiting)
        if self._fleet is not None:
            await self._fleet.start(self._dispatcher, self._peers or Alone(self._open_jobs))
        if self._peers is not None:
            self._peers.start()
        self._sweeper = asyncio.create_task(self._sweep())
        self._is_accepting = True

    async def stop(self, deadline_s: float = 30.0) -> None:
        self._is_accepting = False
        if self._sweeper is not None:
            self._sweeper.cancel()
            await self._dispatcher.stop(deadline_s, self._fleet)
        if self._peers is not None:
            await self._peers.stop()
        if self._webhooks is not None:
            await self._webhooks.stop()
        await self.store.close()

    async def ready(self, timeout_s: float | None = None) -> bool:
        return await self._dispatcher.until_ready(timeout_s)

    # -- nodes ---------------------------------------------------------------------------------------------------

    async def nodes(self, *, fresh: bool = False) -> Mapping[str, Node]:
        if fresh:
            with suppress(WorkerLost):  # what it told before still holds
                await self._checker.refresh()
        return await self._checker.nodes(self.settings.ready_wait_s)

    async def check(self, workflow: Workflow, targets: Collection[str] | None = None, owner: str = LOCAL) -> Checked:
        return await self._checker.check(workflow, targets, owner, self.settings.ready_wait_s)

    async def show(self, workflow: Workflow, owner: str = LOCAL) -> Mapping[str, Mapping[str, Any]]:
        return await self._checker.show(workflow, owner, self.settings.ready_wait_s)

    # -- jobs ----------------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Accepted:
        key = submission.idempotency
        known = await self.store.repeat(submission.owner, key) if key is not None else None
        if known is not None:
            return Accepted(known, is_repeat=True)
        self._refuse_when_full(submission.owner)
        owner, wait_s = submission.owner, self.settings.ready_wait_s
        workflow = await self._checker.current(submission.workflow, wait_s)
        checked = await self._checker.check(workflow, submission.targets, owner, wait_s, submission.job_id)
        roots, extra_data = list(checked.roots), submission.extra_data
        prompt, shows = workflow.prompt(), submission.shows
        request = Request(prompt, roots, extra_data, shows, submission.reuses_outputs)
        self._refuse_when_full(submission.owner)
        # a task of its own: who asks may go away, the job that is stored must run all the same
        self._storing.add(storing := asyncio.create_task(self._store_and_begin(submission, request)))
        storing.add_done_callback(self._storing.discard)
        job, is_repeat = await asyncio.shield(storing)
        if self._broadcast.is_delayed(job.id):
            asyncio.get_running_loop().call_later(ANSWER_S, self._broadcast.go_on, job.id)
        return Accepted(job, checked.problems, is_repeat)

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        return await self.store.get(job_id, owner)

    async def look(self, job_id: str, owner: str | None = None) -> Job:
        return await self.store.look(job_id, owner)

    async def find(self, query: JobQuery) -> Page:
        return await self.store.find(query)

    async def ids(self, query: JobQuery) -> Sequence[str]:
        return await self.store.ids(query)

    async def counts(self, owner: str | None = None) -> Counts:
        return self._counts.counts(owner)

    def told_open(self, owner: str) -> int:
        return self._counts.counts(owner).remaining

    async def cancel(self, job_id: str, owner: str | None = None) -> Job:
        job = await self.store.request_cancel(job_id, owner)
        if job.state is State.RUNNING:
            self._dispatcher.tell_to_stop(job_id)
        else:
            self._dispatcher.remove(job_id)
        return job

    async def cancel_all(self, owner: str | None = None, *, queued: bool = True, running: bool = True) -> int:
        chosen = {State.QUEUED: queued, State.RUNNING: running}
        found = [job for state, is_chosen in chosen.items() if is_chosen for job in await self._in(state, owner)]
        await asyncio.gather(*(self.cancel(job.id) for job in found))
        return len(found)

    async def reorder(
        self,
        job_id: str,
        owner: str | None = None,
        *,
        number: float | None = None,
        front: bool = False,
        priority: int | None = None,
    ) -> Job:
        if (number is not None and not abs(number) < 1e300) or (priority is not None and abs(priority) > LARGEST):
            raise BadValue("place in the queue", number if priority is None else priority, "a finite number")
        job = await self.store.place(job_id, owner, number, front, priority)
        if job_id in self._dispatcher.queue:
            self._dispatcher.add(job)
        return job

    async def retry(self, job_id: str, owner: str | None = None) -> Accepted:
        old = await self.store.get(job_id, owner)
        if not old.state.is_end or old.request is None:
            raise IllegalMove(job_id, old.state, "retried")
        submission = Submission(
            parse_workflow(dict(old.request.prompt)),
            old.owner,
            targets=old.request.targets,
            extra_data=old.request.extra_data,
            meta=old.meta,
            source=old.source,
            priority=old.priority,
            cost=old.cost,
            retry_of=job_id,
            shows=old.request.shows,
            reuses_outputs=old.request.reuses_outputs,
        )
        return await self.submit(submission)

    async def delete(self, job_id: str, owner: str | None = None) -> None:
        await self.store.forget(job_id, owner)

    async def delete_ended(self, owner: str | None = None) -> int:
        return await self.store.forget_ended(owner)

    async def wait(self, job_id: str, owner: str | None = None, timeout_s: float | None = None) -> Job:
        with self._broadcast.following(job_id) as follower:
            known = self._dispatcher.open_job(job_id)
            is_open = known is not None and owner in (None, known.owner)
            if not is_open:
                is_open = not (await self.store.look(job_id, owner)).state.is_end or self._broadcast.is_delayed(job_id)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while is_open:
                        await follower.news.wait()
                        is_open = not any(is_last(event) for event in follower.take())
            return await self.store.look(job_id, owner)

    # -- events --------------------------------------------------------------------------------------------------

    async def events(
        self, job_id: str, owner: str | None = None, *, after: int = 0, limit: int = 1000
    ) -> Sequence[JobEvent]:
        return await self.store.events(await self.store.get(job_id, owner), after, limit)

    async def follow(self, job_id: str, owner: str | None = None, *, after: int = 0) -> AsyncIterator[JobEvent]:
        job = await self.store.get(job_id, owner)
        if job.state.is_end and after >= job.events:
            return
        async for event in self._broadcast.follow(job_id, after, lambda number: self.store.events(job, number)):
            yield event

    async def deliveries(self, job_id: str, owner: str | None = None) -> Sequence[Delivery]:
        await self.store.get(job_id, owner)
        return await deliveries_of(self.store, job_id)

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._broadcast.listen(listener)

    # -- operating -----------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        self._dispatcher.is_paused = True
        await self.store.remember(PAUSED, True)

    async def resume(self) -> None:
        await self.store.remember(PAUSED, False)
        self._dispatcher.is_paused, self._is_accepting = False, self._sweeper is not None
        self._dispatcher.look()

    async def drain(self, timeout_s: float | None = None) -> bool:
        self._is_accepting = False
        return await self._dispatcher.until_idle(timeout_s, with_queue=True)

    async def free(self, *, unload_models: bool = False, free_memory: bool = False) -> None:
        asked = {"unload_models": unload_models, "free_memory": free_memory}
        ready = [worker for worker in self._workers if worker.status().is_ready]
        await asyncio.gather(*(worker.ask("free", asked, FREE_S) for worker in ready))

    async def until_hopeless(self) -> str:
        """Wait until no worker can be started; the reason. What runs the service had better end then."""
        return await self._dispatcher.until_hopeless()

    def workers(self) -> Sequence[WorkerStatus]:
        statuses = (worker.status() for worker in self._workers)
        return [replace(status, models=self._dispatcher.used_by(status.name)) for status in statuses]

    @property
    def servers(self) -> int:
        """How many servers work on this database, this one included."""
        return self._peers.count if self._peers is not None else 1

    @property
    def trouble(self) -> str:
        return self._fleet.trouble if self._fleet is not None else ""

    async def owner_of_file(self, kind: str, subfolder: str, filename: str) -> str | None:
        return await self.store.owner_of_file(kind, subfolder, filename)

    async def files_made(self, owner: str, after: int, limit: int) -> Sequence[MadeFile]:
        return await self.store.files_made(owner, after, limit)

    def deliver(self, post: Post, body: Callable[[Job], Mapping[str, Any]]) -> Webhooks:
        """Have webhooks told from now on, by this client and in these words; once, after `start`."""
        webhooks = self._webhooks = Webhooks(
            self.store, post, body, is_ours=lambda: self._peers is None or self._peers.is_first
        )
        webhooks.start()
        return webhooks

    # -- inside --------------------------------------------------------------------------------------------------

    def _publish(self, events: Sequence[JobEvent]) -> None:
        for event in events:
            self._counts.hear(event)
            self._broadcast.publish(event)
        ended = {event.job_id for event in events if is_last(event)}
        if ended & self._owing or (ended and self._peers is not None):
            self._owing -= ended
            if self._webhooks is not None:
                self._webhooks.look()

    def _open_jobs(self) -> int:
        """How many jobs wait or run, here and elsewhere."""
        return self._counts.counts(None).remaining

    def _learnt(self, name: str) -> None:
        """Another server keeps another fact."""
        if name == PAUSED:
            self._learning = asyncio.create_task(self._read_paused())

    async def _read_paused(self) -> None:
        self._dispatcher.is_paused = bool(await self.store.fact(PAUSED))
        self._dispatcher.look()

    async def _store_and_begin(self, submission: Submission, request: Request) -> tuple[Job, bool]:
        """One transaction: the job waits, or has begun already where nothing waits and a worker is free.

        One that only the disk can refuse begins while it is written. Nobody hears of it before it is, nor of its run
        before it is answered.
        """
        job_id = submission.job_id
        worker = self._dispatcher.reserve(request, submission.priority)
        is_new = is_begun = False
        is_early = worker is not None and self._is_surely_accepted(submission)
        if submission.webhook is not None:
            self._owing.add(job_id)
        try:
            named = self.store.named(worker.name) if worker is not None else None
            row = self.store.post(submission, request, named)  # the writer is at it while the worker is told
            if is_early and worker is not None:
                self._begin_early(submission, request, worker, row)
                is_begun = True
            job, is_repeat = await self.store.stored(row)
            is_new = not is_repeat
        finally:
            if not is_new:
                self._owing.discard(job_id)
                if is_begun:
                    self._dispatcher.refused(job_id)
                elif worker is not None:
                    self._dispatcher.release(worker)
        if is_new and is_early:
            self._dispatcher.written(job_id)
            asyncio.get_running_loop().call_later(GONE_S, self._broadcast.go_on, job_id)
        elif is_new and worker is not None:
            self._dispatcher.begun(replace(begun_at_once(job, self.store.named(worker.name)), request=request), worker)
        elif is_new:
            self._dispatcher.add(job, request)
        return job, is_repeat

    def _is_surely_accepted(self, submission: Submission) -> bool:
        """Whether nothing but the disk can refuse it: no id or key that is taken, no credit that is wanting."""
        job_id = submission.job_id
        if submission.cost or submission.idempotency is not None or self._dispatcher.has(job_id):
            return False
        return self.store.is_new(job_id)

    def _begin_early(
        self, submission: Submission, request: Request, worker: Worker, posted: Posted[tuple[Job, bool]]
    ) -> None:
        """Hand the job to a worker."""
        row = inserted(submission, request, 0.0, self.store.clock())
        self._dispatcher.begun(begun_at_once(job_of(row), worker.name), worker, Early(posted))

    async def _in(self, state: State, owner: str | None) -> Sequence[Job]:
        return await self.store.by_state(state, owner)

    def _refuse_when_full(self, owner: str) -> None:
        if not self._is_accepting:
            raise NotAccepting("no new jobs are taken: the server is draining or stopping")
        queue, settings = self._dispatcher.queue, self.settings
        if len(queue) >= settings.max_queued:
            raise NotAccepting(f"the queue is full: {len(queue)} jobs wait already")
        if owner != LOCAL and queue.waiting(owner) >= settings.max_queued_per_owner:
            allowed = settings.max_queued_per_owner
            raise QueueShareUsed(f"your share of the queue is used up: {allowed} of your jobs wait already")

    async def _sweep(self) -> None:
        """Expire and forget, every now and then; what fails is tried again next time."""
        while True:
            if self._peers is None or self._peers.is_first:
                try:
                    await self._sweep_once()
                except StoreFailed:  # it says so itself
                    pass
                except Exception:  # another server moved a job meanwhile, say: nothing may end the sweeping
                    LOG.exception("what is old waits for the next sweep")
            await asyncio.sleep(self.settings.sweep_every_s)

    async def _sweep_once(self) -> None:
        for job_id in await self.store.expire():
            self._dispatcher.remove(job_id)
        if self.artifacts is not None and self.settings.keep_files_s is not None:
            await self.store.forget_files(self.settings.keep_files_s, self.artifacts.delete)
        while await self.store.forget_old(self.settings.keep_s, self.settings.keep_jobs):
            await asyncio.sleep(0)


def _keep(store: Artifacts, services: Callable[[str], Services | None], owner: str, outcome: Outcome) -> None:
    """Copy a run's output files to where they are kept."""
    folders = services(owner)
    if folders is not None:
        keep_outputs(store, owner, outcome.outputs, folders.output_dir)
