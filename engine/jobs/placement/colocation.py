"""Which job may begin beside those that run on a worker: one that gains much by it, and delays them little.

Equal jobs run one after the other, in their order: that is what people see who queue a batch, and each of them is done
as soon as it can be. A second job begins only for one of three reasons. It is expected to be over long before the
first; it needs nothing but the host lane while the first has the device; or its priority makes it more urgent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.placement.forecast import Course, DeviceWork, JobForecast

__all__ = ["Colocation", "Room"]

SHARE = 0.5
"""Of what the others still need it may need so much at most ..."""
LEAST_GAIN_S = 0.5
"""... and has to be over so much earlier: what takes moments waits for its turn."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the jobs that run on a worker leave to another: the bounds it is held against, worked out once for many.

    A priority above `priority` needs no leave. Of the rest, who needs the device may begin if `most_s` seconds of it
    are enough (less than 0: none may), who does not if `takes_host`.
    """

    priority: float = -inf
    most_s: float = inf
    takes_host: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether anybody may begin."""
        return self.priority == -inf


class Colocation:
    """What the jobs that are not over need of the device, and how far the running ones are.

    With `takes_every_slot` nobody is held back: their evaluations are answered together, so company is what is wanted.
    """

    def __init__(self, takes_every_slot: bool = False) -> None:
        self._takes_every_slot = takes_every_slot
        self._forecast = JobForecast()
        self._works: dict[str, DeviceWork] = {}
        self._on_host: set[str] = set()  # those of them that do without the device
        self._courses: dict[str, Course] = {}

    def declare(self, records: Iterable[Mapping[str, Any]]) -> None:
        """A worker sent its declarations."""
        self._forecast.declare(records)

    def add(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """A job waits. One that was never added (it is from before a restart) begins beside nobody."""
        work = self._works[job_id] = self._forecast.work(prompt)
        if not work.classes:
            self._on_host.add(job_id)

    def begun(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """An attempt of a job began."""
        if job_id not in self._works:
            self.add(job_id, prompt)
        self._courses[job_id] = Course(self._forecast, self._works[job_id])

    def hear(self, job_id: str, body: Body, now: float) -> None:
        """A run said something."""
        if job_id in self._courses:
            self._courses[job_id].hear(body, now)

    def gone(self, job_id: str, *, is_back: bool = False) -> None:
        """The attempt is over, and the job too unless it waits again."""
        self._courses.pop(job_id, None)
        if not is_back:
            self._works.pop(job_id, None)
            self._on_host.discard(job_id)

    def room(self, beside: Sequence[Job]) -> Room:
        """What these leave, as they stand now."""
        if not beside or self._takes_every_slot:
            return Room()
        priority = max(job.priority for job in beside)
        courses = [self._courses[job.id] for job in beside if job.id in self._courses]
        if len(courses) < len(beside):
            return Room(priority, -inf, takes_host=False)
        left_s = min(course.remaining_s() for course in courses)
        most_s = min(SHARE * left_s, left_s - LEAST_GAIN_S)
        return Room(priority, most_s, all(course.needs_device for course in courses))

    def may_fit(self, room: Room, priority: float) -> bool:
        """Whether any job of at most this priority could: mostly none can, and then nobody need be looked at."""
        return priority > room.priority or room.most_s >= 0 or (room.takes_host and bool(self._on_host))

    def may_begin(self, room: Room, job: Job) -> bool:
        """Whether a job that waits may begin there."""
        return job.priority > room.priority or self._fits(room, self._works.get(job.id))

    def may_begin_at_once(self, room: Room, prompt: Mapping[str, Any], priority: int) -> bool:
        """Whether a job that is about to be accepted may begin there."""
        return priority > room.priority or self._fits(room, self._forecast.work(prompt))

    def _fits(self, room: Room, work: DeviceWork | None) -> bool:
        if work is None:
            return False
        if not work.classes:
            return room.takes_host
        expected_s = self._forecast.seconds(work) if room.most_s >= 0 else None
        return expected_s is not None and expected_s <= room.most_s
