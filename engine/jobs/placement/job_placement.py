"""Which job begins next, and on which worker: decided from what waits and what runs. Nothing is begun or written here.

First the worker: of those with a free slot, an idle one before a busy one, then the one that used most of the next
job's model files last, then the one with most room. Then its job: the first of the queue that may begin beside what
the worker has (colocation.py), on a machine that has its files (affinity.py). Where another worker used that job's
files later than this one did, a job goes first whose files are fresher here, so that weights stay where they are:
queue.py says how often. With one worker the order is the queue's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from typing import Any

from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.placement.affinity import Affinity, has_files, model_files
from sigmagraph.engine.jobs.placement.colocation import Colocation, Room
from sigmagraph.engine.jobs.queue import Queue
from sigmagraph.engine.jobs.runs import Running
from sigmagraph.engine.jobs.workers.worker import Worker

__all__ = ["JobPlacement"]


class JobPlacement:
    """Gives the queue's jobs their workers. `queue`, `workers` and `running` are the dispatcher's and change under it.

    _reserved      slots of jobs of which the store has not said yet that they run
    _suspects      jobs under which a worker died
    _colocation    what each job needs of the device, and how far the running ones are
    _affinity      the model files each job needs, and those each worker used last
    """

    def __init__(
        self, queue: Queue, workers: Sequence[Worker], running: Mapping[str, Running], takes_every_slot: bool
    ) -> None:
        self._queue, self._workers, self._running = queue, workers, running
        self._takes_every_slot = takes_every_slot
        self._reserved: Counter[Worker] = Counter()
        self._suspects: set[str] = set()
        self._colocation = Colocation(takes_every_slot)
        self._affinity = Affinity()

    # -- the decision --------------------------------------------------------------------------------------------

    def take(self) -> tuple[Job, Worker] | None:
        """The next job and its worker, in a slot that is reserved from now on; None where nothing may begin."""
        roomy = self._roomy() if len(self._queue) else []
        if not roomy:
            return None
        worker = self._free(self._affinity.wanted(self._queue.next_id()), roomy) or self._free(frozenset(), roomy)
        job = self._next_on(worker) if worker is not None else None
        if worker is None or job is None:
            return None
        self._reserved[worker] += 1
        return job, worker

    def reserve(self, prompt: Mapping[str, Any], priority: int) -> Worker | None:
        """A worker's slot for a job that never waited."""
        worker = self._free(model_files(prompt), self._roomy())
        beside = self._jobs_on(worker) if worker is not None else None
        if worker is None or beside is None:
            return None
        if not self._colocation.may_begin_at_once(self._colocation.room(beside), prompt, priority):
            return None
        self._reserved[worker] += 1
        return worker

    def release(self, worker: Worker) -> None:
        """The reserved slot is taken by a running job, or not wanted any more."""
        self._reserved[worker] -= 1

    @property
    def has_reserved(self) -> bool:
        """Whether a job is on its way to a worker."""
        return self._reserved.total() > 0

    def _roomy(self) -> list[Worker]:
        """The workers with a free slot.

        While a job is about under which a worker died, each runs one job.
        So a job that takes its worker down is soon known, and does not take the same others down with it every time.
        """
        return [worker for worker in self._workers if self._room(worker) > 0]

    def _free(self, files: frozenset[str], roomy: Sequence[Worker]) -> Worker | None:
        """The one of these that should have a job with these model files."""
        fit = [worker for worker in roomy if has_files(worker, files, self._workers)]

        def fitness(worker: Worker) -> tuple[bool, int, int]:
            return not self._is_busy(worker), self._affinity.shared(worker.name, files), self._room(worker)

        return max(fit, key=fitness) if len(fit) > 1 else next(iter(fit), None)

    def _is_busy(self, worker: Worker) -> bool:
        return bool(worker.status().jobs or self._reserved[worker])

    def _room(self, worker: Worker) -> int:
        if self._suspects and self._is_busy(worker):
            return 0
        return worker.free_slots - self._reserved[worker]

    def _next_on(self, worker: Worker) -> Job | None:
        """The next job for a worker: any where it has nothing to do, else one that may begin beside what it has."""
        beside = self._jobs_on(worker)
        if beside is None:
            return None
        room = self._colocation.room(beside)
        stopping = {job_id for job_id in worker.status().jobs if job_id in self._queue}
        if room.is_whole and worker.model_files is None and not stopping:
            return self._queue.take(overtakes=partial(self._overtakes, worker))
        if not room.is_whole and not self._colocation.may_fit(room, self._queue.highest_priority()):
            return None
        return self._queue.take(partial(self._may_begin, worker, room, stopping), partial(self._overtakes, worker))

    def _overtakes(self, worker: Worker, first: Job) -> Callable[[Job], bool] | None:
        """Which jobs may go before this one on a worker: those whose files it used later, where another has this one's.

        The older a use, the likelier the weights had to make room since.
        """
        files = self._affinity.wanted(first.id)
        age = self._affinity.age(worker.name, files)
        if age <= self._affinity.least_age(files):
            return None

        def suits(job: Job) -> bool:
            wanted = self._affinity.wanted(job.id)
            return bool(wanted) and self._affinity.age(worker.name, wanted) < age

        return suits

    def _may_begin(self, worker: Worker, room: Room, stopping: Set[str], job: Job) -> bool:
        """Whether it fits; not where an attempt of its own is still being stopped, whose end would be taken for its."""
        fits = job.id not in stopping and (room.is_whole or self._colocation.may_begin(room, job))
        return fits and has_files(worker, self._affinity.wanted(job.id), self._workers)

    def _jobs_on(self, worker: Worker) -> list[Job] | None:
        """The jobs that run on a worker; None while one is on its way there of which not much is known."""
        if self._reserved[worker] and not self._takes_every_slot:
            return None
        return [running.job for running in self._running.values() if running.worker is worker]

    # -- what it decides from ------------------------------------------------------------------------------------

    def declare(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """A worker sent its declarations."""
        self._colocation.declare(nodes)

    def add(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """A job waits."""
        self._colocation.add(job_id, prompt)
        self._affinity.add(job_id, prompt)

    def know_files(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """A job waits since before a restart. What it needs of the device is known once it runs."""
        self._affinity.add(job_id, prompt)

    def begun(self, job_id: str, prompt: Mapping[str, Any], worker: Worker) -> None:
        """An attempt of a job began."""
        self._colocation.begun(job_id, prompt)
        self._affinity.add(job_id, prompt)  # it may be lost, and wait again
        self._affinity.ran(worker.name, prompt)

    def hear(self, job_id: str, body: Body, now: float) -> None:
        """A run said something."""
        self._colocation.hear(job_id, body, now)

    def stopped(self, job_id: str) -> None:
        """An attempt is over, and the job will wait again."""
        self._colocation.gone(job_id, is_back=True)

    def forget(self, job_id: str) -> None:
        """A job is over, or withdrawn."""
        self._colocation.gone(job_id)
        self._affinity.gone(job_id)
        self._suspects.discard(job_id)

    def suspect(self, job_id: str) -> None:
        """A worker died under this job."""
        self._suspects.add(job_id)

    def lost(self, worker: Worker) -> None:
        """A worker's process is gone, and its weights with it."""
        self._affinity.lost(worker.name)

    def used_by(self, name: str) -> Sequence[str]:
        """The model files that a worker used, the latest first."""
        return self._affinity.used(name)
