"""Who runs next. In memory and pure: the store says what waits, this says in which order.

Larger priority first: it is the operator's, not an owner's. Among owners of equal priority: who has least running, then
who was served longest ago, then who began to wait first; so one owner with a thousand jobs does not keep another
waiting for more than one of them. Among an owner's own jobs: the smaller number, then the earlier arrival. An owner's
numbers are compared with no other's: moving one's own jobs changes nobody else's turn. With one owner that is ComfyUI's
order.

Who takes a job may say that others suit it better, because it has their weights. Such a job goes before those whose
turn is earlier if all have one priority, and their owners equally many running. Nobody starves: a job is passed over so
at most `MOST_OVERTAKEN` times, and by none of its owner's others once it was moved to the front.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from itertools import count, islice, zip_longest
from math import inf
from typing import NamedTuple

from sigmagraph.engine.jobs.job import Job

__all__ = ["Queue"]

LOOKED_AT = 64
FEW = 16
"""So many stale entries are left alone, however few jobs wait."""
LOOKED_AT_FOR_WEIGHTS = 256
MOST_OVERTAKEN = 32

Entry = tuple[int, float, int, str]
"""Minus priority, number, arrival, job id."""
MayBegin = Callable[[Job], bool]
Overtakes = Callable[[Job], MayBegin | None]
"""Given the job whose turn it is: which others suit better. None where it suits itself."""


@dataclass(slots=True)
class _Owner:
    """One owner's waiting jobs. Entries that were moved or removed stay in the heap until they come up, or are many.

    `since` is the turn in which the owner came, `served` the one in which its latest job was taken.
    """

    since: int
    heap: list[Entry] = field(default_factory=list)
    running: int = 0
    served: int = 0


class _Place(NamedTuple):
    """A waiting job's place, and whose it is."""

    entry: Entry
    name: str
    owner: _Owner


class Queue:
    """The waiting jobs, and which owners' jobs are running.

    _entries, _jobs   by id: the place of each waiting job, and the job
    _owners           the waiting places of each owner as a heap, stale ones among them, and how many of theirs run
    _waiting          how many wait, by owner
    _running          the owner of each running job
    _arrivals         who came when; a job that comes back keeps its place
    _overtaken        how often a waiting job was
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}
        self._entries: dict[str, Entry] = {}
        self._jobs: dict[str, Job] = {}
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, str] = {}
        self._arrivals: dict[str, int] = {}
        self._overtaken: Counter[str] = Counter()
        self._turns = count(1)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def get(self, job_id: str) -> Job | None:
        """A job that waits."""
        return self._jobs.get(job_id)

    def ids(self) -> Set[str]:
        """The jobs that wait."""
        return self._jobs.keys()

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

    def take(self, may_begin: MayBegin | None = None, overtakes: Overtakes | None = None) -> Job | None:
        """The next job, of those that may begin now; it counts as running from now on.

        Each owner's next `LOOKED_AT` jobs, or nearly those, are asked about.
        """
        places = self._next(may_begin)
        if not places:
            return None
        entry, name, owner = self._better(places, may_begin, overtakes) or places[0]
        job = self._out(entry[3])
        assert job is not None
        owner.running, owner.served = owner.running + 1, next(self._turns)
        self._running[job.id] = name
        return job

    def next_id(self) -> str | None:
        """The job that is next, whether or not it may begin now."""
        places = self._next(None)
        return places[0][0][3] if places else None

    def near(self, count: int) -> list[str]:
        """About so many jobs whose turns come next, as far as that can be told cheaply: of each owner in turn."""
        owners = sorted(self._owners.values(), key=lambda owner: (owner.running, owner.served, owner.since))
        each = -(-2 * count // max(1, len(owners)))
        rows = [sorted({entry for entry in owner.heap[: 2 * each] if self._is_current(entry)}) for owner in owners]
        turns = (entry for row in zip_longest(*(row[:count] for row in rows)) for entry in row if entry is not None)
        return [entry[3] for entry in sorted(islice(turns, 2 * count), key=lambda entry: entry[0])][:count]

    def highest_priority(self) -> float:
        """That of the most urgent job; minus infinity where none waits."""
        heads = (self._head(owner) for owner in self._owners.values())
        return max((-head[0] for head in heads if head is not None), default=-inf)

    def _next(self, may_begin: MayBegin | None) -> list[_Place]:
        """The first job of each owner whose turn it may be, in the order of their turns."""
        found = ((self._head(owner, may_begin), name, owner) for name, owner in self._owners.items())
        heads = [_Place(head, name, owner) for head, name, owner in found if head is not None]
        if len(heads) < 2:
            return heads
        best = min((place.entry[0], place.owner.running) for place in heads)
        equal = [place for place in heads if (place.entry[0], place.owner.running) == best]
        return sorted(equal, key=lambda place: (place.owner.served, place.owner.since))

    def _better(self, places: list[_Place], may_begin: MayBegin | None, overtakes: Overtakes | None) -> _Place | None:
        """The first job that suits better than the one whose turn it is, and may pass those before it once more."""
        suits = overtakes(self._jobs[places[0].entry[3]]) if overtakes is not None else None
        passed: list[str] = []
        for first, name, owner in places if suits is not None else ():
            for entry in self._near(owner):
                job = self._jobs[entry[3]]
                if entry[0] != first[0]:  # less urgent
                    break
                if suits is not None and suits(job) and (may_begin is None or may_begin(job)):
                    self._overtaken.update(passed)
                    return _Place(entry, name, owner)
                if self._overtaken[job.id] >= MOST_OVERTAKEN or len(passed) == LOOKED_AT_FOR_WEIGHTS:
                    return None
                passed.append(job.id)
                if entry[1] < 0:  # moved to the front
                    break
        return None

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
        self._overtaken.pop(job_id, None)
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._waiting[job.owner] -= 1
            if not self._waiting[job.owner]:
                del self._waiting[job.owner]
        return job

    def _head(self, owner: _Owner, may_begin: MayBegin | None = None) -> Entry | None:
        """The owner's first job that may begin; stale entries fall off."""
        while owner.heap and not self._is_current(owner.heap[0]):
            heapq.heappop(owner.heap)
        if may_begin is None:
            return owner.heap[0] if owner.heap else None
        return next((entry for entry in self._near(owner) if may_begin(self._jobs[entry[3]])), None)

    def _near(self, owner: _Owner) -> list[Entry]:
        """The owner's next jobs, or nearly those: a heap's first entries are small ones."""
        return sorted({entry for entry in owner.heap[:LOOKED_AT] if self._is_current(entry)})

    def _is_current(self, entry: Entry) -> bool:
        return self._entries.get(entry[3]) == entry

    def _forget(self, name: str) -> None:
        """An owner without jobs takes no memory."""
        owner = self._owners.get(name)
        if owner is not None and not owner.running and self._head(owner) is None:
            del self._owners[name]
