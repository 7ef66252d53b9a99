"""`Jobs`: all a protocol adapter may ask of the job layer. `service.JobService` fulfils it.

`owner` None means everyone's (an administrator); with an owner, another's job is `UnknownJob`, as if it were not there.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.workflow import Workflow
from sigmagraph.engine.jobs.events import JobEvent, Preview
from sigmagraph.engine.jobs.job import LOCAL, Accepted, Job, JobQuery, MadeFile, Page, Submission
from sigmagraph.engine.jobs.webhooks.delivery import Delivery

__all__ = ["Checked", "Counts", "Jobs", "Listener", "WorkerStatus"]

Listener = Callable[[JobEvent | Preview], None]
"""Called on the event loop with every committed event and every preview, in order; must not block."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A validated workflow: the outputs that can run, and the problems of those that cannot."""

    roots: Sequence[str]
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs wait and run."""

    queued: int
    running: int

    @property
    def remaining(self) -> int:
        """Both together."""
        return self.queued + self.running


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker as the front sees it. `stats` is what the worker told about itself (device, memory, versions).

    `models` are the weight files it was given last, the latest first: what is resident there, as far as there is room.
    """

    name: str
    is_ready: bool
    starts: int
    jobs: Sequence[str]
    pid: int | None
    stats: Mapping[str, Any]
    last_error: str = ""
    models: Sequence[str] = ()


class Jobs(Protocol):
    """The job layer as adapters see it. Everything async runs on one event loop; nothing blocks it."""

    @property
    def is_paused(self) -> bool:
        """Whether waiting jobs stay waiting."""

    @property
    def is_accepting(self) -> bool:
        """Whether new jobs are taken; not while draining or stopping."""

    async def start(self) -> None:
        """Open the store, recover what a killed server left, start workers. Returns before workers are ready."""

    async def stop(self, deadline_s: float = 30.0) -> None:
        """Take nothing more, let running jobs finish until the deadline, re-queue the rest, close."""

    async def ready(self, timeout_s: float | None = None) -> bool:
        """Whether a worker is ready, waiting for it that long."""

    # -- nodes ---------------------------------------------------------------------------------------------------

    async def nodes(self, *, fresh: bool = False) -> Mapping[str, Node]:
        """Node declarations as the worker sent them; their functions run nowhere here. `fresh` asks again."""

    async def check(self, workflow: Workflow, targets: Collection[str] | None = None, owner: str = LOCAL) -> Checked:
        """Validate; raises `InvalidWorkflow` with every problem where nothing can run."""

    async def show(self, workflow: Workflow, owner: str = LOCAL) -> Mapping[str, Mapping[str, Any]]:
        """What the output nodes of a quick graph show, by id, without a job: for the pages' questions to node code.

        Raises InvalidWorkflow, also where it does not run, and NotAccepting where no worker answers in time.
        """

    # -- jobs ----------------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Accepted:
        """Validate, commit, queue. The row is on disk when this returns.

        Raises InvalidWorkflow, DuplicateJob, IdempotencyConflict, InsufficientCredits, NotAccepting, StoreFailed.
        """

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job with request and outcome; raises `UnknownJob`."""

    async def look(self, job_id: str, owner: str | None = None) -> Job:
        """One job as it is now without its request: costs next to nothing when asked again and again."""

    async def find(self, query: JobQuery) -> Page:
        """Jobs as the query says; outcomes included, requests only if asked for."""

    async def ids(self, query: JobQuery) -> Sequence[str]:
        """The ids of one page of jobs: for lists whose jobs are then read one by one."""

    async def counts(self, owner: str | None = None) -> Counts:
        """Waiting and running jobs."""

    def told_open(self, owner: str) -> int:
        """How many of an owner's jobs are not over, as far as listeners have been told: asked by one of them."""

    async def cancel(self, job_id: str, owner: str | None = None) -> Job:
        """Stop it: a queued job ends now, a running one at its next step. An ended job is left as it is."""

    async def cancel_all(self, owner: str | None = None, *, queued: bool = True, running: bool = True) -> int:
        """Stop all of them; says how many."""

    async def reorder(
        self,
        job_id: str,
        owner: str | None = None,
        *,
        number: float | None = None,
        front: bool = False,
        priority: int | None = None,
    ) -> Job:
        """Give a queued job another place."""

    async def retry(self, job_id: str, owner: str | None = None) -> Accepted:
        """The same request as a new job; `retry_of` names the old one, which must have ended."""

    async def delete(self, job_id: str, owner: str | None = None) -> None:
        """Forget an ended job, its events and artifacts' rows; raises `IllegalMove` for one that has not ended."""

    async def delete_ended(self, owner: str | None = None) -> int:
        """Forget all ended jobs; says how many."""

    async def wait(self, job_id: str, owner: str | None = None, timeout_s: float | None = None) -> Job:
        """The job without its request once it has ended, or as it is when the time is up."""

    # -- events --------------------------------------------------------------------------------------------------

    async def events(
        self, job_id: str, owner: str | None = None, *, after: int = 0, limit: int = 1000
    ) -> Sequence[JobEvent]:
        """Stored events with a number above `after`."""

    def follow(self, job_id: str, owner: str | None = None, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """Events above `after`, stored ones first, then live, to the last. A slow reader slows nobody."""

    async def deliveries(self, job_id: str, owner: str | None = None) -> Sequence[Delivery]:
        """What was told to the job's webhook so far, try by try."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have a function called with everything that happens; returns what ends it."""

    # -- operating -----------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Begin no more jobs, also after a restart; running ones go on."""

    async def resume(self) -> None:
        """Begin jobs again, and take new ones after draining."""

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Take no new jobs and wait until none is left; whether that was reached."""

    async def free(self, *, unload_models: bool = False, free_memory: bool = False) -> None:
        """Have workers let go of weights or cached results once their job is done."""

    def workers(self) -> Sequence[WorkerStatus]:
        """The workers."""

    @property
    def servers(self) -> int:
        """How many servers work on this queue, this one included."""

    @property
    def trouble(self) -> str:
        """What keeps a cluster from giving workers, and what to do; empty where nothing does."""

    async def files_made(self, owner: str, after: int, limit: int) -> Sequence[MadeFile]:
        """Files of an owner's jobs with numbers above `after`: the newest so many, the newest last."""

    async def owner_of_file(self, kind: str, subfolder: str, filename: str) -> str | None:
        """Who made an output (`kind` is output or temp); None where no job did."""
