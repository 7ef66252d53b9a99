"""Who goes next on the device: much shorter remaining work goes first, else first come, first served.

Remaining work shrinks in our eyes with the time since a job arrived (to half once that is twenty times what it still
needs), so nothing starves. A job of which nothing is known yet counts as nearly done: one step is enough to learn its
pace. Only less than half overtakes: paces are measured, and equal jobs must not swap places over noise.
"""

from collections.abc import Iterable
from dataclasses import dataclass

OVERTAKES_AT = 0.5
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Claimant:
    """A job that could use the device now. Higher `priority` goes first, whatever the rest says."""

    priority: int
    remaining_s: float
    age_s: float
    arrival: int
    is_ending: bool = False

    @property
    def need_s(self) -> float:
        """Remaining work as it counts: less, the longer ago the job arrived."""
        if self.remaining_s <= 0:
            return 0.0
        return self.remaining_s / (1 + self.age_s / (PATIENCE * self.remaining_s))


def first(claimants: Iterable[Claimant]) -> Claimant:
    """The one that goes next; jobs that only have to clean up come before all others."""
    ordered = sorted(claimants, key=lambda each: (not each.is_ending, -each.priority, each.arrival))
    chosen = ordered[0]
    for each in ordered[1:]:
        if each.priority < chosen.priority or chosen.is_ending:
            break
        if each.need_s < chosen.need_s * OVERTAKES_AT:
            chosen = each
    return chosen
