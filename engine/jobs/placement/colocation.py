"""Which job may begin beside those that run on a worker: one that gains much by it, and delays them little.

Equal jobs run one after the other, in their order: that is what people see who queue a batch, and each of them is done
as soon as it can be. A second job begins only where it is expected to be over long before the first, where it needs
nothing but the host lane while the first has the device, or where it is more urgent by its priority.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sigmagraph.engine.jobs.events import Body
from sigmagraph.engine.jobs.job import Job
from sigmagraph.engine.jobs.placement.forecast import Course, DeviceWork, JobForecast

__all__ = ["Colocation"]

SHARE = 0.5
"""Of what the others still need it may need so much at most ..."""
LEAST_GAIN_S = 0.5
"""... and has to be over so much earlier: what takes moments waits for its turn."""


class Colocation:
    """What the jobs that are not over need of the device, and how far the running ones are.

    With `takes_every_slot` nobody is held back: their evaluations are answered together, so company is what is wanted.
    """

    def __init__(self, takes_every_slot: bool = False) -> None:
        self._takes_every_slot = takes_every_slot
        self._forecast = JobForecast()
        self._works: dict[str, DeviceWork] = {}
        self._courses: dict[str, Course] = {}

    def declare(self, records: Iterable[Mapping[str, Any]]) -> None:
        """A worker sent its declarations."""
        self._forecast.declare(records)

    def add(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """A job waits. One that was never added (it is from before a restart) begins beside nobody."""
        self._works[job_id] = self._forecast.work(prompt)

    def begun(self, job_id: str, prompt: Mapping[str, Any]) -> None:
        """An attempt of a job began."""
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

    def may_begin(self, job: Job, beside: Sequence[Job]) -> bool:
        """Whether a job that waits may begin beside these."""
        return self._needs_no_welcome(job.priority, beside) or self._is_welcome(self._works.get(job.id), beside)

    def may_begin_at_once(self, prompt: Mapping[str, Any], priority: int, beside: Sequence[Job]) -> bool:
        """Whether a job that is about to be accepted may begin beside these."""
        return self._needs_no_welcome(priority, beside) or self._is_welcome(self._forecast.work(prompt), beside)

    def _needs_no_welcome(self, priority: int, beside: Sequence[Job]) -> bool:
        return not beside or self._takes_every_slot or priority > max(job.priority for job in beside)

    def _is_welcome(self, work: DeviceWork | None, beside: Sequence[Job]) -> bool:
        courses = [self._courses[job.id] for job in beside if job.id in self._courses]
        if work is None or len(courses) < len(beside):
            return False
        if not work.classes:
            return all(course.needs_device for course in courses)
        expected_s, left_s = self._forecast.seconds(work), min(course.remaining_s() for course in courses)
        return expected_s is not None and expected_s <= SHARE * left_s and left_s - expected_s >= LEAST_GAIN_S
