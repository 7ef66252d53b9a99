"""The graph of a loop: which StartLoop an EndLoop ends, what lies between them, and that body once for each turn.

Reads a prompt through `get_node(id)` alone, so that loops inside the turns of other loops are seen as well.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.errors import BadValue

__all__ = ["END", "START", "GetNode", "Loop", "find_loop", "is_link"]

START, END = "StartLoop", "EndLoop"
NOTHING = frozenset[str]()
GetNode = Callable[[str], Mapping[str, Any]]
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
    reach = _Reach(get_node)
    start_id = reach.start_of(end_id)
    body = {i: reach.node(i) for i in reach.above(end_id) if i != start_id and start_id in reach.ends_above(i)}
    return Loop(start_id, end_id, reach.node(start_id), reach.node(end_id), body)


class _Reach:
    """What each node depends on, looked up once: of each only the ends of loops, for a graph has many more nodes."""

    def __init__(self, get_node: GetNode) -> None:
        self._get = get_node
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._above: dict[str, frozenset[str]] = {}
        """The starts and ends above a node; nodes in a row share one set."""
        self._starts: dict[str, str] = {}
        self._asked: set[str] = set()

    def node(self, node_id: str) -> Mapping[str, Any]:
        """A node in API form."""
        if node_id not in self._nodes:
            self._nodes[node_id] = self._get(node_id)
        return self._nodes[node_id]

    def above(self, node_id: str) -> Sequence[str]:
        """All a node depends on."""
        found, waiting = dict[str, None](), self._sources(node_id)
        while waiting:
            if (current := waiting.pop()) not in found:
                found[current] = None
                waiting += self._sources(current)
        return list(found)

    def ends_above(self, node_id: str) -> frozenset[str]:
        """The starts and ends among what a node depends on."""
        waiting, entered = [(node_id, False)], set[str]()
        while waiting:
            current, is_ready = waiting.pop()
            if current in self._above or (current in entered and not is_ready):  # the second: a cycle, told elsewhere
                continue
            entered.add(current)
            if is_ready:
                sources = self._sources(current)
                own = [i for i in sources if self.node(i)["class_type"] in (START, END)]
                self._above[current] = _joined([self._above.get(i, NOTHING) for i in sources], own)
            else:
                waiting.append((current, True))
                waiting += [(source, False) for source in self._sources(current)]
        return self._above[node_id]

    def start_of(self, end_id: str) -> str:
        """The innermost start above an end that no end in between has."""
        if end_id in self._starts:
            return self._starts[end_id]
        self._asked.add(end_id)
        above = self.ends_above(end_id)
        ends = [i for i in above if self.node(i)["class_type"] == END and (i in self._starts or i not in self._asked)]
        for other in sorted((i for i in ends if i not in self._starts), key=lambda i: len(self.ends_above(i))):
            self.start_of(other)  # the first of a chain first: each asks for those before it
        taken = {self._starts[other] for other in ends}
        free = [i for i in above if self.node(i)["class_type"] == START and i not in taken]
        inner = [i for i in free if not any(i in self.ends_above(other) for other in free)]
        if len(inner) != 1:
            found = ", ".join(sorted(inner)) or "none"
            allowed = "one StartLoop before each EndLoop; parent_iteration says which loop is inside another"
            raise BadValue(f"the StartLoop of EndLoop {end_id}", found, allowed)
        self._starts[end_id] = inner[0]
        return inner[0]

    def _sources(self, node_id: str) -> list[str]:
        return [value[0] for value in self.node(node_id)["inputs"].values() if is_link(value)]


def _joined(sets: Sequence[frozenset[str]], more: Collection[str]) -> frozenset[str]:
    """All of them in one; that itself where the others hold nothing else."""
    largest = max(sets, key=len, default=NOTHING)
    if not more and all(one is largest or one <= largest for one in sets):
        return largest
    return largest.union(*sets, more)
