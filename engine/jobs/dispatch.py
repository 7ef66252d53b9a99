"""Between the queue and the workers: who runs what, what they say into the store, and what if they say nothing.

`Dispatcher` is the workers' listener. Everything but the store's writer happens on the event loop.

A job on its way, and what knows of it then:

    accepted     `queue` (it waits), or a slot is reserved for it while its row is written, never both
    taken        `_open`; the slot is reserved until the store says that it runs
    early        `_open` and `_running`, while its row is written: what is said of it waits (`Running.early`); where it
                 is over sooner, its end is written right after its row
    running      `_running` too: its worker, when it was last heard of, what it said that is not written yet
    over, lost   not `_running` any more; `_open` until the store says so, then gone, or in the `queue` again

Which job is next, and where, is `_placement`'s to say (placement/). A turn is three lines (`_take_turn`): ask it, note
the job, have the beginning written. `_wake` is set whenever another job might begin. `_given_up` are workers that
cannot start, and why.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sigmagraph.engine.errors import EngineError, IllegalMove, StoreFailed, UnknownJob, WriteFailed
from sigmagraph.engine.jobs.broadcast import Broadcast
from sigmagraph.engine.jobs.events import Body, Cause, Preview
from sigmagraph.engine.jobs.job import Failure, Job, Outcome, Request, State
from sigmagraph.engine.jobs.placement.job_placement import JobPlacement
from sigmagraph.engine.jobs.queue import Queue
from sigmagraph.engine.jobs.read_ahead import ReadAhead, learn_files
from sigmagraph.engine.jobs.runs import Early, End, Running, Said, lost, note_unwritten, packs_of
from sigmagraph.engine.jobs.settings import JobSettings
from sigmagraph.engine.jobs.stopping import Stopping
from sigmagraph.engine.jobs.store import transitions
from sigmagraph.engine.jobs.store.database import Posted, Tx
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.jobs.workers.worker import Finished, Fleet, JobAttempt, Picture, Worker

__all__ = ["Dispatcher"]

STOPPED = "the server was stopped while it ran"
AGAIN_S = 0.5
AHEAD = 16  # requests of jobs near the front that are in memory, beside two for each worker
GATHER_S = 0.001  # what is said within it is one commit, and a short run's events are one with its end
Archive = Callable[[str, Outcome], None]
"""Keeps the files of an owner's run; called on a thread."""


class Dispatcher:
    """Gives waiting jobs to free workers and writes down what becomes of them."""

    def __init__(
        self,
        store: JobStore,
        broadcast: Broadcast,
        workers: list[Worker],
        settings: JobSettings,
        declare: Callable[[Sequence[Mapping[str, Any]]], None],
        archive: Archive | None = None,
    ) -> None:
        self.queue = Queue()
        self.is_paused = self.is_stopping = False
        self._store, self._broadcast, self._workers, self._settings = store, broadcast, workers, settings
        self._declare, self._archive = declare, archive
        self._running: dict[str, Running] = {}
        self._placement = JobPlacement(self.queue, workers, self._running, settings.takes_every_slot)
        self._ahead = ReadAhead(store, self.queue, lambda: AHEAD + 2 * len(workers))
        self._open: set[str] = set()
        self._unwritten: dict[str, Worker] = {}  # of early jobs, which may be over
        self._stopping = Stopping()
        self._wake, self._idle, self._ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._given_up: dict[str, str] = {}
        self._packs: dict[str, str] = {}
        self._hopeless = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._keeping: set[asyncio.Task[None]] = set()

    # -- from outside --------------------------------------------------------------------------------------------

    def start(self, waiting: Sequence[Job]) -> None:
        """Begin with these jobs."""
        for job in waiting:
            self.queue.put(job)
        self._tasks = [asyncio.create_task(loop()) for loop in (partial(self._dispatch, waiting), self._watch)]
        for worker in self._workers:
            worker.start(self)
        self.look()

    def look(self) -> None:
        """There may be something to do."""
        self._wake.set()
        self._note_idle()

    def reserve(self, request: Request, priority: int) -> Worker | None:
        """A worker's slot for a job that need not wait; `begun` or `release` follows."""
        waits = self.is_paused or self.is_stopping or len(self.queue)
        return None if waits else self._placement.reserve(request.prompt, priority)

    def release(self, worker: Worker) -> None:
        """The slot is not taken after all."""
        self._placement.release(worker)
        self.look()

    def begun(self, job: Job, worker: Worker, early: Early | None = None) -> None:
        """A job was stored as begun in a reserved slot, or will be: `written` or `refused` follows `early`."""
        self._placement.release(worker)
        self.queue.begin(job)
        self._open.add(job.id)
        self._idle.clear()
        if early is not None:
            self._broadcast.hold(job.id, is_asked=True)
        self._hand_over(job, worker, early)
        self.look()

    def written(self, job_id: str) -> None:
        """A job that began early is on disk: what was said of it may follow."""
        self._unwritten.pop(job_id, None)
        running = self._running.get(job_id)  # None where it is over, and its end is being written
        if running is not None and running.early is not None:
            running.early.written()
            self._write(running)

    def refused(self, job_id: str) -> None:
        """A job that began early could not be written, so there is none."""
        self._broadcast.drop(job_id)
        self._unwritten.pop(job_id, None)
        running = self._running.get(job_id)
        if running is not None:
            self._stopping.stop(job_id, running.worker, self._now())
            self._let_go(job_id)

    def add(self, job: Job, request: Request | None = None) -> None:
        """A job waits, or has another place."""
        if request is not None:
            self._placement.add(job.id, request.prompt)
            self._ahead.keep(job.id, request)
        self.queue.put(job)
        self._idle.clear()
        self.look()

    def remove(self, job_id: str) -> None:
        """A job does not wait any more."""
        self.queue.remove(job_id)
        self._ahead.forget(job_id)
        self._placement.forget(job_id)
        self.look()

    def runs(self, job_id: str) -> bool:
        """Whether a job runs here, is about to, or has ended and the store does not say so yet."""
        return job_id in self._open

    def running(self) -> Set[str]:
        """The jobs of which `runs` says so."""
        return self._open

    def waiting(self) -> Set[str]:
        """The jobs that wait, as far as this server has heard."""
        return self.queue.ids()

    def taken(self, job_id: str, attempt: int) -> None:
        """Another server gave up this attempt of a job, or has begun a later one: what runs here is stopped."""
        running = self._running.get(job_id)
        if running is not None and running.job.attempt <= attempt:
            self._stopping.stop(job_id, running.worker, self._now())
            self._let_go(job_id)

    def open_job(self, job_id: str) -> Job | None:
        """A job that waits or runs, without its request and as it was when it began to; None where that is unsure."""
        running = self._running.get(job_id)
        return running.job if running is not None else self.queue.get(job_id)

    def has(self, job_id: str) -> bool:
        """Whether a job of that id is on its way."""
        return job_id in self._open or job_id in self.queue

    def tell_to_stop(self, job_id: str) -> None:
        """Stop a running job at its next step."""
        running = self._running.get(job_id)
        if running is not None:
            running.told_to_stop_at = running.told_to_stop_at or self._now()
            running.worker.stop_job(job_id)

    def join(self, worker: Worker) -> None:
        """One more worker."""
        self._workers.append(worker)
        worker.start(self)

    async def leave(self, worker: Worker, reason: str) -> None:
        """A worker goes for good; what it had waits again, and nothing counts against it."""
        self._workers.remove(worker)
        self._given_up.pop(worker.name, None)
        self._placement.lost(worker)
        had = [job_id for job_id, running in self._running.items() if running.worker is worker]
        for job_id in had:
            self._lose(job_id, reason, Cause.SERVER)
        await worker.stop()
        self.look()

    async def until_ready(self, timeout_s: float | None) -> bool:
        """Whether a worker is ready."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        return any(worker.status().is_ready for worker in self._workers)

    async def until_hopeless(self) -> str:
        """Wait until every worker has given up starting; the reasons."""
        await self._hopeless.wait()
        return "; ".join(self._given_up.values())

    async def until_idle(self, timeout_s: float | None, *, with_queue: bool) -> bool:
        """Whether nothing runs (and, with the queue, nothing waits)."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_idle or (with_queue and len(self.queue)):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def used_by(self, name: str) -> Sequence[str]:
        """The model files that a worker used, the latest first."""
        return self._placement.used_by(name)

    async def stop(self, deadline_s: float, fleet: Fleet | None = None) -> None:
        """Begin nothing more, wait, then stop the workers and put back what they had."""
        self.is_stopping = True
        await self.until_idle(deadline_s, with_queue=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if fleet is not None:
            await fleet.stop()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        if fleet is not None:
            await fleet.close()
        await asyncio.sleep(0)  # what a worker said last
        for job_id in list(self._running):
            self._lose(job_id, STOPPED, Cause.SERVER)

    # -- from the workers ----------------------------------------------------------------------------------------

    def is_ready(self, worker: Worker, nodes: Sequence[Mapping[str, Any]]) -> None:
        self._given_up.pop(worker.name, None)
        self._packs |= packs_of(nodes)
        self._declare(nodes)
        self._placement.declare(nodes)
        self._ready.set()
        self.look()

    def happened(self, worker: Worker, job_id: str, body: Body, picture: Picture | None) -> None:
        running = self._of(worker, job_id)
        if running is None:
            return
        running.heard_at = self._now()
        running.hear(self._store.clock(), body)
        self._placement.hear(job_id, body, running.heard_at)
        if len(self.queue) and worker.free_slots > 0:
            self._wake.set()  # what is known now may let another begin
        if not running.is_posted:
            running.is_posted = True
            asyncio.get_running_loop().call_later(GATHER_S, self._write, running)
        if picture is not None:
            node_id, about = str(getattr(body, "node_id", "")), dict(picture.meta)
            self._broadcast.show(Preview(job_id, running.job.owner, node_id, picture.content_type, picture.data, about))

    def _write(self, running: Running) -> None:
        """What gathered meanwhile; what an end took with it already needs no writing, what is early waits."""
        if running.said and (running.early is None or running.early.is_written):
            self._post(Said(running))

    def are_waiting(self, worker: Worker, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            running = self._of(worker, job_id)
            if running is not None:
                running.heard_at = self._now()

    def has_finished(self, worker: Worker, job_id: str, finished: Finished) -> None:
        running = self._of(worker, job_id)
        if running is None:  # refused, or taken from it: its slot is free now
            self.look()
            return
        finished = running.judged(finished)
        if finished.state is State.CANCELLED and running.told_to_stop_at is None and self.is_stopping:
            self._lose(job_id, STOPPED, Cause.SERVER)
            return
        if self._archive is not None and finished.outcome is not None and finished.state is State.SUCCEEDED:
            if running.early is None or not running.early.holds(partial(self._keep, running.job, finished)):
                self._keep(running.job, finished)
        else:
            self._end(job_id, finished)

    def _keep(self, job: Job, finished: Finished) -> None:
        assert self._archive is not None
        self._keeping.add(task := asyncio.create_task(self._keep_and_end(job, finished, self._archive)))
        task.add_done_callback(self._keeping.discard)

    async def _keep_and_end(self, job: Job, finished: Finished, archive: Archive) -> None:
        """The job has succeeded once its files are where they are kept."""
        assert finished.outcome is not None
        try:
            await asyncio.to_thread(archive, job.owner, finished.outcome)
        except Exception as error:  # noqa: BLE001  # whatever a store of files raises, the job has to end
            code = error.code if isinstance(error, EngineError) else WriteFailed.code
            failure = Failure(code, str(error) or type(error).__name__)
            finished = replace(finished, state=State.FAILED, failure=failure, tail=())
        self._end(job.id, finished)

    def _end(self, job_id: str, finished: Finished) -> None:
        running = self._running.get(job_id)
        if running is None:
            return
        self._gone(job_id, is_back=False)
        row = running.early.row if running.early is not None else None
        self._post(End(running, finished, self._store.clock()), partial(self._settled, job_id, row=row), after=row)
        self._take_turn()  # now: who comes next begins with the same commit

    def has_given_up(self, worker: Worker, reason: str) -> None:
        self._given_up[worker.name] = reason
        if len(self._given_up) == len(self._workers):
            self._hopeless.set()

    def is_lost(self, worker: Worker, job_ids: Sequence[str], reason: str, *, is_from_outside: bool) -> None:
        self._placement.lost(worker)
        if not any(other.status().is_ready for other in self._workers):
            self._ready.clear()
        for job_id in job_ids:
            if self._of(worker, job_id) is not None:
                if not is_from_outside:
                    self._placement.suspect(job_id)
                self._lose(job_id, reason, Cause.OUTSIDE if is_from_outside else Cause.JOB)

    def _of(self, worker: Worker, job_id: str) -> Running | None:
        """The job as this worker has it; None where it was taken from it: a late word counts for nothing."""
        running = self._running.get(job_id)
        return running if running is not None and running.worker is worker else None

    # -- inside --------------------------------------------------------------------------------------------------

    async def _dispatch(self, waiting: Sequence[Job]) -> None:
        await learn_files(self._store, self.queue, self._placement, [job.id for job in waiting])
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._take_turn()

    def _take_turn(self) -> None:
        """Have begin whatever may begin now."""
        while not self.is_paused and not self.is_stopping and (placed := self._placement.take()) is not None:
            job, worker = placed
            self._open.add(job.id)
            self._begin(job, worker)
        if not self.is_paused and not self.is_stopping:
            self._ahead.look()

    def _begin(self, job: Job, worker: Worker) -> None:
        """Have it written that a job begins there, or that it is too late; the slot is kept meanwhile.

        What is known of what it asks for goes to the worker at once: while the row is written, if nobody but the disk
        can refuse it. One such job at a time, so that a disk in trouble stops the queue.
        """
        now, named, request = self._store.clock(), self._store.named(worker.name), self._ahead.take(job.id)
        is_late = job.expires_at is not None and job.expires_at <= now
        if is_late:
            ends = partial(transitions.end, job_id=job.id, to=State.EXPIRED, at=now)
            self._post(ends, partial(self._has_begun, job, worker))
            return
        is_early = request is not None and not self._store.has_peers and worker not in self._unwritten.values()
        begins = partial(transitions.begin, job_id=job.id, worker=named, at=now, is_known=is_early)
        if not is_early:
            self._post(begins, partial(self._has_begun, job, worker), is_sure=False)
            return
        self._placement.release(worker)
        self._broadcast.hold(job.id)
        begun = replace(transitions.begun(job, named, now), request=request)
        row = self._post(begins, partial(self._early_is_written, job, worker))
        self._hand_over(begun, worker, Early(row))

    def _early_is_written(self, job: Job, worker: Worker, done: "asyncio.Future[Job]") -> None:
        """A job that waited and began early: its row says so, or it was cancelled meanwhile, or the store is closed."""
        problem = asyncio.CancelledError() if done.cancelled() else done.exception()
        if problem is None:
            self.written(job.id)
            return
        self.refused(job.id)
        if not isinstance(problem, IllegalMove | UnknownJob):
            note_unwritten(done)
            asyncio.get_running_loop().call_later(AGAIN_S, self.add, job)

    def _has_begun(self, job: Job, worker: Worker, done: "asyncio.Future[Job]") -> None:
        problem = asyncio.CancelledError() if done.cancelled() else done.exception()
        if problem is None and done.result().state is State.RUNNING:
            self._placement.release(worker)
            self._hand_over(done.result(), worker)
        elif problem is None or isinstance(problem, IllegalMove | UnknownJob):  # too late, or cancelled meanwhile
            self._placement.release(worker)
            self._let_go(job.id)
        else:  # locked or full: it keeps its place, and time may help
            note_unwritten(done)
            self._gone(job.id, is_back=True)
            self.queue.put(job)
            self._open.discard(job.id)
            asyncio.get_running_loop().call_later(AGAIN_S, self.release, worker)

    def _hand_over(self, job: Job, worker: Worker, early: Early | None = None) -> None:
        assert job.request is not None
        light = replace(job, request=None)
        self._running[job.id] = Running(light, worker, self._now(), job.request.shows, early=early)
        if early is not None:
            self._unwritten[job.id] = worker
        self._placement.begun(job.id, job.request.prompt, worker)
        if worker.free_slots <= 0:  # it died while the row was written
            self._lose(job.id, f"{worker.name} was gone before it began", Cause.SERVER)
            return
        worker.run(JobAttempt.of(job))

    def _lose(self, job_id: str, reason: str, cause: Cause) -> None:
        """The attempt is lost; the job waits again once the store says so."""
        running = self._running.get(job_id)
        if running is None:
            return
        if running.early is not None and running.early.holds(partial(self._lose, job_id, reason, cause)):
            return
        self._write(running)  # before it is lost
        self._gone(job_id, is_back=True)
        lose = lost(running, reason, cause, self._store.clock(), self._settings.max_deaths, self._packs)
        self._post(lose, partial(self._came_back, job_id))

    def _came_back(self, job_id: str, done: "asyncio.Future[Job]") -> None:
        if done.exception() is None and done.result().state is State.QUEUED:
            self.queue.put(done.result())
        else:
            self._placement.forget(job_id)
        self._settled(job_id, done)

    def _settled(self, job_id: str, done: "asyncio.Future[Job]", row: Posted[Any] | None = None) -> None:
        """What became of the job is in the store; nothing is of one whose `row` was refused."""
        if row is not None and row.problem is not None:
            done.exception()  # whoever asked for the row is told
        else:
            note_unwritten(done)
        self._open.discard(job_id)
        self.look()

    def _gone(self, job_id: str, *, is_back: bool) -> None:
        self._running.pop(job_id, None)
        self.queue.done(job_id, is_back=is_back)
        if is_back:
            self._placement.stopped(job_id)
        else:
            self._placement.forget(job_id)
        self.look()

    def _let_go(self, job_id: str) -> None:
        """Taken from the queue, and not to be run."""
        self._open.discard(job_id)
        self._gone(job_id, is_back=False)

    @property
    def _is_idle(self) -> bool:
        return not self._open and not self._placement.has_reserved

    def _note_idle(self) -> None:
        if self._is_idle:
            self._idle.set()

    def _post(
        self,
        work: Callable[[Tx], Any],
        then: "Callable[[asyncio.Future[Any]], None] | None" = None,
        *,
        is_sure: bool = True,
        after: Posted[Any] | None = None,
    ) -> Posted[Any] | None:
        """Have it written, however long that takes; a closed store means that the process ends, and recovery is due."""
        try:
            posted = self._store.database.post(work, is_sure=is_sure, after=after)
        except StoreFailed:
            return None
        posted.future.add_done_callback(then or note_unwritten)
        return posted

    async def _watch(self) -> None:
        """Kill workers that say nothing for too long, or do not stop when told to."""
        step_s, cancel_s = self._settings.step_deadline_s, self._settings.cancel_deadline_s
        while True:
            await asyncio.sleep(min(5.0, step_s / 4, cancel_s / 4))
            now = self._now()
            for job_id, running in list(self._running.items()):
                if running.told_to_stop_at is not None and now - running.told_to_stop_at > cancel_s:
                    running.worker.kill(f"did not stop job {job_id} within {cancel_s:g} s")
                elif now - running.heard_at > step_s:
                    running.worker.kill(f"missed its step deadline: nothing from job {job_id} for {step_s:g} s")
            self._stopping.kill_overdue({job_id: one.worker for job_id, one in self._running.items()}, now, cancel_s)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
