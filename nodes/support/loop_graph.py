"""The graph of a loop: which StartLoop an EndLoop ends, what lies between them, and that body once for each turn.

Reads a prompt through `get_node(id)` alone, so that loops inside the turns of other loops are seen as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import GetNode

__all__ = ["END", "START", "Loop", "Loops", "find_loop", "is_link"]

START, END = "StartLoop", "EndLoop"
Link = Sequence[Any]


def is_link(value: Any) -> bool:
    """Whether an input in API form is a link."""
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


@dataclass(frozen=True)
class Loop:
    """One loop of a prompt: its two ends, and the nodes between them, each in API form."""

    start_id: str
    end_id: str
    start: Mapping[str, Any]
    end: Mapping[str, Any]
    body: Mapping[str, Mapping[str, Any]]

    def copy(self, prefix: str) -> dict[str, Any]:
        """The body under ids `<prefix>body.<id>`; what was linked to the start is linked to the node `<prefix>turn`."""
        return {
            f"{prefix}body.{node_id}": {
                **node,
                "inputs": {name: self.moved(value, prefix) for name, value in node["inputs"].items()},
                "override_display_id": node_id,
            }
            for node_id, node in self.body.items()
        }

    def moved(self, value: Any, prefix: str) -> Any:
        """An input's value inside the turn of that prefix."""
        if not is_link(value):
            return value
        source, slot = value
        if source == self.start_id:
            return [f"{prefix}turn", slot]
        return [f"{prefix}body.{source}" if source in self.body else source, slot]

    def ending(self, name: str) -> Any:
        """What arrives at an input of the end; None where nothing does."""
        value = self.end["inputs"].get(name)
        return value if is_link(value) else None

    def reads(self, slot: int) -> bool:
        """Whether the body or the end reads that output of the start."""
        nodes = (*self.body.values(), self.end)
        return any(is_link(v) and list(v) == [self.start_id, slot] for node in nodes for v in node["inputs"].values())

    def terminations(self) -> Iterator[Link]:
        """What must run in every turn without being given back."""
        for name, value in self.end["inputs"].items():
            if name.startswith("terminations.") and is_link(value):
                yield value


def find_loop(end_id: str, get_node: GetNode) -> Loop:
    """The loop an EndLoop ends. Raises `BadValue` where none or several come into question."""
    return Loops(get_node).find(end_id)


class _Held(NamedTuple):
    """What a node and all before it hold: bits by the order in which starts were found, sources first."""

    starts: int = 0
    taken: int = 0
    """The starts that an end took."""
    lost: str | None = None
    """An end without a start."""


NOTHING = _Held()


class Loops:
    """The loops of one prompt. Each node is looked at once, however many loops are asked for.

    The start of an end is the innermost above it that no end in between has. A graph has many more nodes than loops, so
    of each node only the loops' ends are kept, as bits; nodes in a row share them.
    """

    def __init__(self, get_node: GetNode) -> None:
        self._get = get_node
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._held: dict[str, _Held] = {}
        self._starts: list[str] = []
        self._start_of: dict[str, int] = {}
        self._candidates: dict[str, str] = {}
        """Of ends without a start: what came into question."""

    def find(self, end_id: str) -> Loop:
        """The loop an EndLoop ends. Raises `BadValue` where none or several come into question."""
        self._look(end_id)
        lost = self._held[end_id].lost
        if lost is not None:
            allowed = "one StartLoop before each EndLoop; parent_iteration says which loop is inside another"
            raise BadValue(f"the StartLoop of EndLoop {lost}", self._candidates[lost], allowed)
        own = self._start_of[end_id]
        start_id = self._starts[own]
        return Loop(start_id, end_id, self._node(start_id), self._node(end_id), self._between(own, end_id))

    def _between(self, own: int, end_id: str) -> dict[str, Mapping[str, Any]]:
        """What the end depends on and what depends on its start: nothing else has such nodes above it."""
        bit, start_id = 1 << own, self._starts[own]
        found, waiting = dict[str, Mapping[str, Any]](), self._sources(end_id)
        while waiting:
            current = waiting.pop()
            if current not in found and current != start_id and self._held[current].starts & bit:
                found[current] = self._node(current)
                waiting += self._sources(current)
        return found

    def _look(self, node_id: str) -> None:
        """Find out what a node and all before it hold, sources first."""
        waiting, entered = [(node_id, False)], set[str]()
        while waiting:
            current, is_ready = waiting.pop()
            if current in self._held or (current in entered and not is_ready):  # the second: a cycle, told elsewhere
                continue
            entered.add(current)
            sources = self._sources(current)
            if is_ready:
                self._held[current] = self._with(current, _joined([self._held.get(i, NOTHING) for i in sources]))
            else:
                waiting += [(current, True), *((source, False) for source in sources)]

    def _with(self, node_id: str, above: _Held) -> _Held:
        """What lies above a node, and the node."""
        kind = self._node(node_id)["class_type"]
        if kind == START:
            self._starts.append(node_id)
            return above._replace(starts=above.starts | 1 << len(self._starts) - 1)
        if kind != END or above.lost is not None:
            return above
        inner = self._inner(above.starts & ~above.taken)
        if len(inner) != 1:
            self._candidates[node_id] = ", ".join(sorted(self._starts[at] for at in inner)) or "none"
            return above._replace(lost=node_id)
        self._start_of[node_id] = inner[0]
        return above._replace(taken=above.taken | 1 << inner[0])

    def _inner(self, free: int) -> list[int]:
        """The starts among those that are above no other of them: the last one, for sources come first, and so on."""
        inner: list[int] = []
        while free:
            inner.append(free.bit_length() - 1)
            free &= ~self._held[self._starts[inner[-1]]].starts
        return inner

    def _node(self, node_id: str) -> Mapping[str, Any]:
        if node_id not in self._nodes:
            self._nodes[node_id] = self._get(node_id)
        return self._nodes[node_id]

    def _sources(self, node_id: str) -> list[str]:
        return [value[0] for value in self._node(node_id)["inputs"].values() if is_link(value)]


def _joined(parts: Sequence[_Held]) -> _Held:
    """All of them in one; one of them itself where the others hold nothing else."""
    whole = NOTHING
    for part in parts:
        if part is not whole and part is not NOTHING:
            whole = _Held(whole.starts | part.starts, whole.taken | part.taken, whole.lost or part.lost)
    return next((part for part in parts if part == whole), whole)
