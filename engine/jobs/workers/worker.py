"""`Worker`: whatever runs jobs - a process of its own, or this one. What it is given, and what it tells.

A composition (`Setup`) says which nodes there are and what they may use; this layer knows neither nodes nor torch.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.cache.memory import MemoryCache
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.graph.node import Node, Services
from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import Failure, Job, Outcome, State
from sigmagraph.engine.jobs.protocol import WorkerStatus

__all__ = [
    "Finished",
    "Fleet",
    "Hall",
    "JobAttempt",
    "Listener",
    "Picture",
    "Setup",
    "Sharing",
    "Worker",
    "load_factory",
]


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded preview."""

    content_type: str
    data: bytes
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a factory makes, in the worker: the nodes, and what runs of them use.

    `services` gives each owner's folders. `encode_preview` turns what a node reports into a picture, or None.
    `around` is entered round every step of a node; `host_threads` nodes of the host lane run beside it. Samplers of up
    to `batch_evaluations` jobs share a forward.
    `free(unload_models, free_memory)` lets go of weights and caches; `relieve` does what can be done when memory ran
    out, before a node is tried once more. `stats` is told when the worker is ready, `counts`
    after every job that changed it: it has to be cheap.
    """

    nodes: Mapping[str, Node]
    services: Callable[[str], Services | None] = lambda owner: None
    cache: MemoryCache | ResultStore = field(default_factory=MemoryCache)
    encode_preview: Callable[[Any], Picture | None] = lambda value: None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    host_threads: int = 4
    batch_evaluations: int = 1
    free: Callable[[bool, bool], None] = lambda unload_models, free_memory: None
    relieve: Callable[[], None] = lambda: None
    stats: Callable[[], Mapping[str, Any]] = dict
    counts: Callable[[], Mapping[str, Any]] = dict


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """One attempt of one job."""

    job_id: str
    owner: str
    attempt: int
    prompt: Mapping[str, Any]
    targets: Sequence[str]
    extra_data: Mapping[str, Any]
    priority: int = 0
    reuses_outputs: bool = False

    @classmethod
    def of(cls, job: Job) -> "JobAttempt":
        """The attempt that a job with its request is at."""
        asked = job.request
        assert asked is not None
        about = (asked.prompt, asked.targets, asked.extra_data, job.priority, asked.reuses_outputs)
        return cls(job.id, job.owner, job.attempt, *about)


@dataclass(frozen=True, slots=True)
class Finished:
    """How an attempt ended; `tail` are the run's last events, stored together with the end."""

    state: State
    failure: Failure | None = None
    outcome: Outcome | None = None
    tail: Sequence[Body] = ()


class Listener(Protocol):
    """Who is told. Called on the event loop, in the order things happened; must not block."""

    def is_ready(self, worker: "Worker", nodes: Sequence[Mapping[str, Any]]) -> None:
        """It has started, and these are its nodes' declarations."""

    def happened(self, worker: "Worker", job_id: str, body: Body, picture: Picture | None) -> None:
        """Something happened in a run."""

    def are_waiting(self, worker: "Worker", job_ids: Sequence[str]) -> None:
        """These are well and say nothing because others are having their turn; told every now and then."""

    def has_finished(self, worker: "Worker", job_id: str, finished: Finished) -> None:
        """The attempt is over."""

    def is_lost(self, worker: "Worker", job_ids: Sequence[str], reason: str, *, is_from_outside: bool) -> None:
        """It died with these jobs, or was killed by somebody who is none of them. It starts again by itself."""

    def has_given_up(self, worker: "Worker", reason: str) -> None:
        """It failed to start again and again; it goes on trying, and nobody need wait for that."""


class Worker(Protocol):
    """Runs tasks, up to `slots` at a time. Starts again by itself when it dies."""

    @property
    def name(self) -> str:
        """Its name in events and lists."""

    @property
    def free_slots(self) -> int:
        """How many more tasks it takes now; 0 while it is not ready."""

    @property
    def model_files(self) -> frozenset[str] | None:
        """The weight files where it runs, by their names in graphs; None: those that the front has."""

    def start(self, listener: Listener) -> None:
        """Begin to start; `is_ready` follows."""

    def run(self, task: JobAttempt) -> None:
        """Take a task; `has_finished` or `is_lost` follows, once."""

    def stop_job(self, job_id: str) -> None:
        """Stop a task at its next step; nothing happens if it is not here."""

    async def ask(self, question: str, values: Mapping[str, Any], timeout_s: float) -> Any:
        """Have node code answer: `nodes`, `check`, `show` or `free`. Raises `WorkerLost` when it does not in time."""

    def kill(self, reason: str) -> None:
        """End it at once; `is_lost` follows for what it had."""

    async def stop(self) -> None:
        """End it for good, without `is_lost`."""

    def status(self) -> WorkerStatus:
        """How it is."""


class Hall(Protocol):
    """Where workers come and go while everything runs."""

    def join(self, worker: Worker) -> None:
        """One more."""

    async def leave(self, worker: Worker, reason: str) -> None:
        """One less; what it had waits again."""

    def used_by(self, name: str) -> Sequence[str]:
        """The model files that a worker used, the latest first."""


class Sharing(Protocol):
    """What a fleet has to know of its queue: how much there is to do, and which servers share its machines."""

    @property
    def count(self) -> int:
        """How many servers there are, this one included."""

    @property
    def is_first(self) -> bool:
        """Whether what one server is enough for is this one's to do."""

    def open_jobs(self) -> int:
        """How many jobs wait or run, wherever."""

    async def take(self, names: Sequence[str], most: int) -> Set[str]:
        """Those of all these things that are this server's: what it has, and free ones until it has `most`."""

    async def give_back(self, name: str) -> None:
        """Another server may have this."""


class Fleet(Protocol):
    """Workers that come and go. `trouble` says what keeps them from coming, and what to do; empty as a rule."""

    trouble: str

    async def connect(self) -> None:
        """See that there can be any; raises `ClusterUnusable`."""

    async def start(self, hall: Hall, sharing: Sharing) -> None:
        """Bring the first; others follow."""

    async def stop(self) -> None:
        """Bring no more. The workers are stopped by who has them."""

    async def close(self) -> None:
        """Let go of what the workers needed, once they are stopped."""


def load_factory(path: str) -> Callable[[Mapping[str, Any]], Setup]:
    """The function behind `package.module:function`."""
    module, _, name = path.partition(":")
    try:
        factory = getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise BadValue("worker factory", path, f"an import path like 'package.module:function' ({error})") from error
    return factory  # type: ignore[no-any-return]  # the operator's word for it; calling it tells
