"""Running jobs as the dispatcher holds them, and how what they say is written: the loop appends, the writer takes."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.execution.events import NodeExpanded, NodeFinished, NodeStarted
from sigmagraph.engine.graph.source import PACKS
from sigmagraph.engine.jobs.events import Body, Cause
from sigmagraph.engine.jobs.job import Failure, Job, State
from sigmagraph.engine.jobs.store import log, transitions
from sigmagraph.engine.jobs.store.database import Posted, Tx
from sigmagraph.engine.jobs.workers.worker import Finished, Worker

__all__ = ["Early", "End", "Running", "Said", "lost", "note_unwritten", "packs_of"]

LOG = logging.getLogger("sigmagraph.jobs")


@dataclass(slots=True)
class Early:
    """A run that began before its job is written. Its end is written after that `row`; a loss is `held` until then."""

    row: Posted[Any] | None
    is_written: bool = False
    held: list[Callable[[], None]] = field(default_factory=list)

    def holds(self, call: Callable[[], None]) -> bool:
        """Whether it is too early for that: then it is called later."""
        if self.is_written:
            return False
        self.held.append(call)
        return True

    def written(self) -> None:
        """The job is on disk."""
        self.row, self.is_written = None, True
        for call in self.held:
            call()


@dataclass(slots=True)
class Running:
    """One task on a worker. `said` is what it said and the writer has not taken yet; `shows` is its `Request`'s.

    One that began before its job was written has an `early`. `at` are the nodes under way, the latest last.
    """

    job: Job
    worker: Worker
    heard_at: float
    shows: str | None = None
    told_to_stop_at: float | None = None
    said: deque[tuple[float, Body]] = field(default_factory=deque)
    is_posted: bool = False
    early: Early | None = None
    at: dict[str, NodeStarted] = field(default_factory=dict)

    def hear(self, at: float, body: Body) -> None:
        """Something happened in the run."""
        self.said.append((at, body))
        match body:
            case NodeStarted():
                self.at[body.node_id] = body
            case NodeFinished() | NodeExpanded():
                self.at.pop(body.node_id, None)
            case _:
                pass

    def take(self) -> list[tuple[float, Body]]:
        """What it said since, once."""
        taken = []
        while self.said:
            taken.append(self.said.popleft())
        return taken

    def judged(self, finished: Finished) -> Finished:
        """The end as it counts: a success without the pictures that were to be shown is a failure."""
        if self.shows is None or finished.state is not State.SUCCEEDED:
            return finished
        shown = finished.outcome.shown_by(self.shows) if finished.outcome is not None else None
        if _has_pictures(shown):
            return finished
        failure = Failure("no_output", "The workflow ended without a picture", self.shows)
        return replace(finished, state=State.FAILED, failure=failure, tail=())


def _has_pictures(ui: Any) -> bool:
    """Whether a node's user-interface record names pictures, each of them a file."""
    images = ui.get("images") if isinstance(ui, Mapping) else None
    return isinstance(images, list | tuple) and len(images) > 0 and all(_is_file(image) for image in images)


def _is_file(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or entry.get("type") not in ("output", "temp"):
        return False
    return all(isinstance(entry.get(name), str) for name in ("subfolder", "filename"))


def packs_of(declared: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Class -> the pack it is from, of declared nodes, and where in it the class is written."""
    return {
        str(record["class_type"]): f"{str(record['module']).removeprefix(PACKS)}, {record['source']}".removesuffix(", ")
        for record in declared
        if str(record["module"]).startswith(PACKS)
    }


def lost(
    running: Running, reason: str, cause: Cause, at: float, max_deaths: int, packs: Mapping[str, str]
) -> Callable[[Tx], Job]:
    """What writes that the attempt is lost; a job that ends with it names the nodes that ran."""
    failure, job = Failure("worker_lost", reason), running.job
    if cause is Cause.JOB and running.at:
        *_, last = running.at.values()
        message = f"{reason} while {', '.join(_in_words(each, packs) for each in running.at.values())} ran"
        failure = Failure("worker_lost", message, last.display_id, last.class_type)
    return partial(
        transitions.lose,
        job_id=job.id,
        reason=reason,
        at=at,
        cause=cause,
        max_deaths=max_deaths,
        attempt=job.attempt,
        failure=failure,
    )


def _in_words(node: NodeStarted, packs: Mapping[str, str]) -> str:
    pack = f" of the pack {packs[node.class_type]}" if node.class_type in packs else ""
    return f"node {node.display_id} ({node.class_type}{pack})"


def note_unwritten(done: "asyncio.Future[Any]") -> None:
    """What a run said is written, or was given up because the store closes: recovery runs the job again then."""
    problem = None if done.cancelled() else done.exception()
    if problem is not None:
        LOG.error("not written: %s", problem, exc_info=None if isinstance(problem, EngineError) else problem)


class Said:
    """Writes what a run said until the writer comes to it: one commit for many events when there are many."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._taken: list[tuple[float, Body]] = []

    def __call__(self, tx: Tx) -> None:
        self._running.is_posted = False  # before taking: what comes now is posted anew
        self._taken += self._running.take()
        if self._taken:  # all of them again if the commit has to be tried again
            log.append_all(tx, self._running.job.id, self._taken)


class End:
    """Writes the end of an attempt together with what the run said last."""

    def __init__(self, running: Running, finished: Finished, at: float) -> None:
        self._running = running
        self._taken: list[tuple[float, Body]] = []
        self._move = partial(
            transitions.end,
            job_id=running.job.id,
            to=finished.state,
            at=at,
            failure=finished.failure,
            outcome=finished.outcome,
            tail=finished.tail,
            attempt=running.job.attempt,
        )

    def __call__(self, tx: Tx) -> Job:
        self._taken += self._running.take()
        return self._move(tx, said=self._taken)
