"""Who runs next. In memory and pure: the store says what waits, this says in which order.

Larger priority first: it is the operator's, not an owner's. Among owners of equal priority: who has least running, then
who was served longest ago, then who began to wait first; so one owner with a thousand jobs does not keep another
waiting for more than one of them. Among an owner's own jobs: the smaller number, then the earlier arrival. An owner's
numbers are compared with no other's: moving one's own jobs changes nobody else's turn. With one owner that is ComfyUI's
order.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import inf

from sigmagraph.engine.jobs.job import Job

__all__ = ["Queue"]

LOOKED_AT = 64
FEW = 16
"""So many stale entries are left alone, however few jobs wait."""

Entry = tuple[int, float, int, str]
"""Minus priority, number, arrival, job id."""


@dataclass(slots=True)
class _Owner:
    """One owner's waiting jobs. Entries that were moved or removed stay in the heap until they come up, or are many.

    `since` is the turn in which the owner came, `served` the one in which its latest job was taken.
    """

    since: int
    heap: list[Entry] = field(default_factory=list)
    running: int = 0
    served: int = 0


class Queue:
    """The waiting jobs, and which owners' jobs are running.

    _entries, _jobs   by id: the place of each waiting job, and the job
    _owners           the waiting places of each owner as a heap, stale ones among them, and how many of theirs run
    _waiting          how many wait, by owner
    _running          the owner of each running job
    _arrivals         who came when; a job that comes back keeps its place
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}
        self._entries: dict[str, Entry] = {}
        self._jobs: dict[str, Job] = {}
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, str] = {}
        self._arrivals: dict[str, int] = {}
        self._turns = count(1)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def get(self, job_id: str) -> Job | None:
        """A job that waits."""
        return self._jobs.get(job_id)

    def waiting(self, owner: str) -> int:
        """How many jobs of one owner wait."""
        return self._waiting[owner]

    def put(self, job: Job) -> None:
        """Add a job, or give it its new place; a job that comes back keeps its time of arrival."""
        arrival = self._arrivals.setdefault(job.id, next(self._turns))
        entry = (-job.priority, job.number, arrival, job.id)
        self._waiting[job.owner] += 0 if job.id in self._jobs else 1
        is_there = self._entries.get(job.id) == entry
        self._entries[job.id], self._jobs[job.id] = entry, job
        if not is_there:
            owner = self._owner(job.owner)
            heapq.heappush(owner.heap, entry)
            self._compact(owner, self._waiting[job.owner])

    def remove(self, job_id: str) -> None:
        """Take a job out; nothing happens if it does not wait."""
        job = self._out(job_id)
        if job is not None:
            self._arrivals.pop(job_id, None)
            self._forget(job.owner)

    def take(self, may_begin: Callable[[Job], bool] | None = None) -> Job | None:
        """The next job, of those that may begin now; it counts as running from now on.

        Each owner's next `LOOKED_AT` jobs, or nearly those, are asked about.
        """
        found = self._next(may_begin)
        if found is None:
            return None
        entry, name, owner = found
        job = self._out(entry[3])
        assert job is not None
        owner.running, owner.served = owner.running + 1, next(self._turns)
        self._running[job.id] = name
        return job

    def next_id(self) -> str | None:
        """The job that is next, whether or not it may begin now."""
        found = self._next(None)
        return found[0][3] if found is not None else None

    def highest_priority(self) -> float:
        """That of the most urgent job; minus infinity where none waits."""
        heads = (self._head(owner) for owner in self._owners.values())
        return max((-head[0] for head in heads if head is not None), default=-inf)

    def _next(self, may_begin: Callable[[Job], bool] | None) -> tuple[Entry, str, _Owner] | None:
        found = ((self._head(owner, may_begin), name, owner) for name, owner in self._owners.items())
        heads = [(head, name, owner) for head, name, owner in found if head is not None]
        if not heads:
            return None
        best = min(head[0] for head, _, _ in heads)
        return min(
            (candidate for candidate in heads if candidate[0][0] == best),
            key=lambda candidate: (candidate[2].running, candidate[2].served, candidate[2].since),
        )

    def begin(self, job: Job) -> None:
        """A job that did not wait counts as running from now on."""
        self._arrivals.setdefault(job.id, next(self._turns))
        owner = self._owner(job.owner)
        owner.running, owner.served = owner.running + 1, next(self._turns)
        self._running[job.id] = job.owner

    def done(self, job_id: str, *, is_back: bool = False) -> None:
        """A job that ran does so no more; `is_back` if it will wait again."""
        name = self._running.pop(job_id, None)
        if name is not None:
            self._owners[name].running -= 1
            self._forget(name)
        if not is_back:
            self._arrivals.pop(job_id, None)

    def _owner(self, name: str) -> _Owner:
        if name not in self._owners:
            self._owners[name] = _Owner(next(self._turns))
        return self._owners[name]

    def _compact(self, owner: _Owner, waiting: int) -> None:
        """Leave stale entries out once they outnumber the jobs that wait: however often jobs are moved, it is a few."""
        if len(owner.heap) > 2 * waiting + FEW:
            owner.heap = list({entry for entry in owner.heap if self._is_current(entry)})
            heapq.heapify(owner.heap)

    def _out(self, job_id: str) -> Job | None:
        self._entries.pop(job_id, None)
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._waiting[job.owner] -= 1
            if not self._waiting[job.owner]:
                del self._waiting[job.owner]
        return job

    def _head(self, owner: _Owner, may_begin: Callable[[Job], bool] | None = None) -> Entry | None:
        """The owner's first job that may begin; stale entries fall off."""
        while owner.heap and not self._is_current(owner.heap[0]):
            heapq.heappop(owner.heap)
        if may_begin is None:
            return owner.heap[0] if owner.heap else None
        near = sorted(entry for entry in owner.heap[:LOOKED_AT] if self._is_current(entry))  # a heap's first are small
        return next((entry for entry in near if may_begin(self._jobs[entry[3]])), None)

    def _is_current(self, entry: Entry) -> bool:
        return self._entries.get(entry[3]) == entry

    def _forget(self, name: str) -> None:
        """An owner without jobs takes no memory."""
        owner = self._owners.get(name)
        if owner is not None and not owner.running and self._head(owner) is None:
            del self._owners[name]
