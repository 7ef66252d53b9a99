"""How long a job will need the device: guessed before it begins and while it runs, learned from what runs said.

Guesses decide who may begin beside whom, and nothing else: a wrong one delays a job, and changes no result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.execution.events import NodeFinished, NodeProgress
from sigmagraph.engine.graph.workflow import as_link
from sigmagraph.engine.jobs.events import Body

__all__ = ["Course", "DeviceWork", "JobForecast"]

FRESH = 0.5  # weight of the newest measurement
MOST_DONE = 10_000


@dataclass(frozen=True, slots=True)
class DeviceWork:
    """The nodes of a job that need the device, by id: their classes, the whole numbers they are given, what they do.

    Two nodes of one `deed` do the same: class, literals and everything behind their links are equal.
    """

    classes: Mapping[str, str]
    numbers: Mapping[str, Mapping[str, int]]
    deeds: Mapping[str, int]


class JobForecast:
    """What nodes of a class usually take. On the event loop only.

    A class that reports progress has a pace, the seconds of one unit of it. One of its inputs says how many units there
    will be (`steps`, as a rule): the one whose number was the maximum it reported. Others have the time of a whole
    call. Classes that nobody has seen count 0, and so does what was done before: the cache has it, most likely.
    """

    def __init__(self) -> None:
        self._device: frozenset[str] = frozenset()
        self._paces: dict[str, float] = {}
        self._lengths: dict[str, tuple[str | None, float]] = {}
        self._wholes: dict[str, float] = {}
        self._done: dict[int, None] = {}

    def declare(self, records: Iterable[Mapping[str, Any]]) -> None:
        """A worker sent its declarations."""
        self._device = frozenset(record["class_type"] for record in records if record["lane"] == "device")

    def work(self, prompt: Mapping[str, Any]) -> DeviceWork:
        """What of a prompt needs the device."""
        needing = {i: node for i, node in prompt.items() if node["class_type"] in self._device}
        numbers = {
            i: {name: value for name, value in node.get("inputs", {}).items() if type(value) is int}
            for i, node in needing.items()
        }
        deeds = _deeds(prompt)
        return DeviceWork(
            {i: node["class_type"] for i, node in needing.items()}, numbers, {i: deeds[i] for i in needing}
        )

    def seconds(self, work: DeviceWork) -> float | None:
        """What a job that has not begun will take; None where nothing is known of any of its nodes."""
        if not any(kind in self._paces or kind in self._wholes for kind in work.classes.values()):
            return None
        return sum(self.node_s(work, node_id) for node_id in work.classes)

    def node_s(self, work: DeviceWork, node_id: str) -> float:
        """What one node will take."""
        kind = work.classes[node_id]
        if work.deeds[node_id] in self._done:
            return 0.0
        if kind not in self._paces:
            return self._wholes.get(kind, 0.0)
        name, last = self._lengths[kind]
        return self._paces[kind] * (work.numbers[node_id].get(name, last) if name is not None else last)

    def pace_s(self, kind: str) -> float | None:
        """The seconds of one unit of progress."""
        return self._paces.get(kind)

    def learn_pace(self, kind: str, seconds: float, numbers: Mapping[str, int], maximum: float) -> None:
        """A unit takes so long, on the average of the latest run."""
        self._paces[kind] = seconds
        named = next((name for name, number in numbers.items() if number == maximum), None)
        self._lengths[kind] = named if named is not None else self._lengths.get(kind, (None, 0.0))[0], maximum

    def learn_whole(self, kind: str, seconds: float) -> None:
        """A node that reports no progress took so long."""
        self._wholes[kind] = (1 - FRESH) * self._wholes.get(kind, seconds) + FRESH * seconds

    def learn_done(self, deed: int) -> None:
        """A node is done; the oldest of very many is forgotten."""
        self._done.pop(deed, None)
        self._done[deed] = None
        if len(self._done) > MOST_DONE:
            del self._done[next(iter(self._done))]


class Course:
    """How far one running job is: which of its nodes are left, and where those stand that report progress."""

    def __init__(self, forecast: JobForecast, work: DeviceWork) -> None:
        self._forecast, self._work = forecast, work
        self._left = dict(work.classes)
        self._began: dict[str, tuple[float, float]] = {}
        self._at: dict[str, NodeProgress] = {}

    def hear(self, body: Body, now: float) -> None:
        """Note what the run said, and learn from it."""
        match body:
            case NodeProgress() if body.node_id in self._left:
                value, at = self._began.setdefault(body.node_id, (body.value, now))
                if body.value > value:  # from its first report on: what goes before it happens once, and reports bunch
                    kind, numbers = self._left[body.node_id], self._work.numbers[body.node_id]
                    self._forecast.learn_pace(kind, (now - at) / (body.value - value), numbers, body.maximum)
                self._at[body.node_id] = body
            case NodeFinished() if body.node_id in self._left:
                kind = self._left.pop(body.node_id)
                if self._at.pop(body.node_id, None) is None and body.source == "executed":
                    self._forecast.learn_whole(kind, body.milliseconds / 1e3)
                self._forecast.learn_done(self._work.deeds[body.node_id])
            case _:
                pass

    @property
    def needs_device(self) -> bool:
        """Whether any of its nodes needs the device at all."""
        return bool(self._work.classes)

    def remaining_s(self) -> float:
        """What it still needs; 0 while nothing is known."""
        return sum(self._node_s(node_id, kind) for node_id, kind in self._left.items())

    def _node_s(self, node_id: str, kind: str) -> float:
        pace = self._forecast.pace_s(kind)
        if node_id not in self._at or pace is None:
            return self._forecast.node_s(self._work, node_id)
        return pace * max(0.0, self._at[node_id].maximum - self._at[node_id].value)


def _deeds(prompt: Mapping[str, Any]) -> dict[str, int]:
    """What each node does, as a number; a node in a ring, or behind one, does something of its own."""
    deeds: dict[str, int] = {}
    entered: set[str] = set()
    waiting = list(prompt)
    while waiting:
        node_id = waiting[-1]
        inputs = prompt[node_id].get("inputs", {})
        links = {name: link for name, value in inputs.items() if (link := as_link(value)) is not None}
        missing = [link.source for link in links.values() if link.source in prompt and link.source not in deeds]
        if node_id in deeds or not missing or node_id in entered:
            waiting.pop()
            read = {name: (deeds.get(link.source, id(prompt)), link.slot) for name, link in links.items()}
            parts = sorted((name, repr(read.get(name, value))) for name, value in inputs.items())
            deeds.setdefault(node_id, hash((prompt[node_id]["class_type"], *parts)))
        else:
            entered.add(node_id)
            waiting += missing
    return deeds
