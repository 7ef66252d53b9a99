"""`CheckedGraphs`: what a worker read and checked when the front asked, kept until the job runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.jobs.workers.worker import JobAttempt

__all__ = ["CheckedGraphs"]

MOST_NODES = 20_000
"""Of all graphs kept; a graph of so many nodes takes about 20 MB."""


@dataclass(frozen=True, slots=True)
class _Kept:
    prompt: Mapping[str, Any]
    owner: str
    graph: Graph


class CheckedGraphs:
    """By job id; the oldest go first when there are too many. May be used from several threads.

    An id is a client's word, and another may have checked something else under it: a graph is only given to an
    attempt of the same owner, prompt and targets.
    """

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        self._most_nodes, self._nodes = most_nodes, 0
        self._kept: dict[str, _Kept] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, job_id: str, owner: str, prompt: Mapping[str, Any], graph: Graph) -> None:
        """For the attempt that follows."""
        with self._lock:
            self._take(job_id)
            self._kept[job_id] = _Kept(prompt, owner, graph)
            self._nodes += len(prompt)
            while self._nodes > self._most_nodes:
                self._take(next(iter(self._kept)))

    def take(self, task: JobAttempt) -> Graph | None:
        """The graph of just this task, if it is here; once."""
        with self._lock:
            kept = self._take(task.job_id)
        if kept is None or kept.owner != task.owner or list(kept.graph.roots) != list(task.targets):
            return None
        return kept.graph if kept.prompt == task.prompt else None

    def _take(self, job_id: str) -> _Kept | None:
        kept = self._kept.pop(job_id, None)
        if kept is not None:
            self._nodes -= len(kept.prompt)
        return kept
