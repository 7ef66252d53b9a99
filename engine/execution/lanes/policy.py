"""Who goes next on the device: who has least left for its length goes first, else first come, first served.

What counts is the geometric mean of what a job still needs and of all it needs (the RS policy, Wierman 2005: it keeps
the mean slowdown low, where shortest remaining work alone makes a short job wait for the end of a long one). It shrinks
with the time since the job arrived, to half at twenty times its length, so nothing starves. A job of which nothing is
known yet counts as nearly done: one step is enough to learn its pace. Only what needs much less overtakes: paces are
measured, and equal jobs must not swap places over noise.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

OVERTAKES_AT = 2 / 3
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Claimant:
    """A job that could use the device now. Higher `priority` goes first, whatever the rest says.

    `remaining_s` is what it still needs of the device, `spent_s` what it has had, `age_s` the time since it arrived.
    """

    priority: int
    remaining_s: float
    spent_s: float
    age_s: float
    arrival: int
    is_ending: bool = False

    @property
    def need_s(self) -> float:
        """What it still needs, weighed by its length: less, the longer ago it arrived."""
        if self.remaining_s <= 0:
            return 0.0
        whole_s = self.spent_s + self.remaining_s
        return math.sqrt(self.remaining_s * whole_s) / (1 + self.age_s / (PATIENCE * whole_s))


def first(claimants: Iterable[Claimant]) -> Claimant:
    """The one that goes next; jobs that only have to clean up come before all others."""
    ordered = sorted(claimants, key=lambda claimant: (not claimant.is_ending, -claimant.priority, claimant.arrival))
    chosen = ordered[0]
    for claimant in ordered[1:]:
        if claimant.priority < chosen.priority or chosen.is_ending:
            break
        if claimant.need_s < chosen.need_s * OVERTAKES_AT:
            chosen = claimant
    return chosen
