"""What the nodes of a class usually take on the device. Learned from what ran; knows no run and no clock.

Guesses serve the order of turns alone: a wrong one delays a job, and changes no result.
"""

from collections.abc import Mapping

from sigmagraph.engine.execution.calling.node_task import NodeTask

FORGETTING = 1.01
FRESH = 0.5  # weight of the newest measurement


class Forecast:
    """Seconds a unit of progress takes, by class, and seconds in all for classes that report no progress."""

    def __init__(self) -> None:
        self._paces: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def pace_s(self, class_type: str) -> float:
        """The usual seconds per unit of progress; infinite while none is known."""
        return self._paces.get(class_type, float("inf"))

    def whole_s(self, kinds: Mapping[str, int]) -> float:
        """Seconds that so many nodes of these classes take; classes that report progress, and unknown ones, count 0."""
        known = self._seconds
        return sum(number * known[kind] for kind, number in kinds.items() if kind in known)

    def learn_pace(self, task: NodeTask) -> None:
        """The usual pace of a class: the fastest seen, forgotten slowly."""
        kind = task.vertex.node.class_type
        if task.pace_s < float("inf"):
            self._paces[kind] = min(task.pace_s, FORGETTING * self._paces.get(kind, float("inf")))

    def learn_whole(self, task: NodeTask) -> None:
        """A node is done: how long it took, where it reports no progress from which to tell beforehand."""
        kind = task.vertex.node.class_type
        if task.progress is None:
            self._seconds[kind] = (1 - FRESH) * self._seconds.get(kind, task.seconds) + FRESH * task.seconds
