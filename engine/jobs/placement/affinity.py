"""Which worker has a job's weights already: by the names of the model files in its graph, and what each worker ran."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from sigmagraph.engine.jobs.workers.worker import Worker

__all__ = ["Affinity", "has_files", "model_files"]

WEIGHTS = (".safetensors", ".sft", ".gguf")
REMEMBERED = 16  # files per worker: about what a card's memory has room for


def model_files(prompt: Mapping[str, Any]) -> frozenset[str]:
    """The names of weight files that a graph in API form is given."""
    inputs = (value for node in prompt.values() for value in (node.get("inputs") or {}).values())
    return frozenset(value for value in inputs if isinstance(value, str) and value.lower().endswith(WEIGHTS))


def has_files(worker: Worker, files: frozenset[str], workers: Sequence[Worker]) -> bool:
    """Whether a worker's machine has these files, or no other has: the job says there what is missing, then."""
    if worker.model_files is None or files <= worker.model_files:
        return True
    ready = (other for other in workers if other.status().is_ready)
    return not any(other.model_files is None or files <= other.model_files for other in ready)


class Affinity:
    """What waiting jobs want, and what each worker used last."""

    def __init__(self) -> None:
        self._wanted: dict[str, frozenset[str]] = {}
        self._used: dict[str, list[str]] = {}

    def add(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """A job waits."""
        self._wanted[job_id] = model_files(prompt)

    def gone(self, job_id: str) -> None:
        """It does so no more."""
        self._wanted.pop(job_id, None)

    def ran(self, worker: str, prompt: Mapping[str, Any]) -> None:
        """A worker got a job: its files are what it used last."""
        files = model_files(prompt)
        kept = [name for name in self._used.get(worker, ()) if name not in files]
        self._used[worker] = [*sorted(files), *kept][:REMEMBERED]

    def lost(self, worker: str) -> None:
        """A worker's process is gone, and its weights with it."""
        self._used.pop(worker, None)

    def wanted(self, job_id: str | None) -> frozenset[str]:
        """The files of a waiting job; none where nothing is known of it."""
        return self._wanted.get(job_id or "", frozenset())

    def used(self, worker: str) -> tuple[str, ...]:
        """What a worker used, the latest first."""
        return tuple(self._used.get(worker, ()))

    def age(self, worker: str, files: frozenset[str]) -> float:
        """How many other files a worker used since it used the oldest of these; infinite where it never used one."""
        used = self._used.get(worker, ())
        return max((used.index(name) if name in used else inf for name in files), default=0.0)

    def least_age(self, files: frozenset[str]) -> float:
        """The same for the worker that used them last."""
        return min((self.age(worker, files) for worker in self._used), default=inf)

    def shared(self, worker: str, files: frozenset[str]) -> int:
        """How many of these a worker used last."""
        return len(files.intersection(self._used.get(worker, ())))
