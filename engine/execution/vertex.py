"""What a run remembers of each node, and the generator that does a node's work. Knows one node at a time."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.cache.memory import Entry, InnerUi
from sigmagraph.engine.execution.calling.calls import Pending, blocker_in, calls, slices
from sigmagraph.engine.execution.calling.context import CallContext
from sigmagraph.engine.execution.events import Source
from sigmagraph.engine.graph.graph import GraphNode
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.results import Joinable, Progress, Row
from sigmagraph.engine.graph.workflow import Link


class Status(Enum):
    """Where a node stands in its run. IDLE: not needed so far; what moves it on is drawn at the head of run.py."""

    IDLE = "idle"
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    EXPANDED = "expanded"
    DONE = "done"


MOVES: Mapping[Status, frozenset[Status]] = {
    Status.IDLE: frozenset({Status.WAITING, Status.DONE}),  # needed; in the store
    Status.WAITING: frozenset({Status.READY, Status.DONE}),  # the last source is there; its twin is done
    Status.READY: frozenset({Status.RUNNING, Status.PARKED, Status.DONE}),  # taken; claimed elsewhere; just kept there
    Status.PARKED: frozenset({Status.READY}),
    Status.RUNNING: frozenset({Status.DONE, Status.EXPANDED, Status.WAITING, Status.READY}),  # lazy needs; tried again
    Status.EXPANDED: frozenset({Status.DONE}),
    Status.DONE: frozenset({Status.WAITING, Status.DONE}),  # let go and needed again; then found in the store
}
"""Every move a node makes. No move is checked in a run, where it would cost; a test checks them over random graphs."""


@dataclass(slots=True)
class Vertex:
    """One node of one run.

    What it is:
        at, node      its place in the graph, and its class
        key           the content key its result is kept under
        rank          its place in the order of work: the plan's, then expansion by expansion
        parent        the node whose expansion made it; None for nodes of the prompt
        display_id    the node the editor shows for it
    Whom it waits for, and who waits for it:
        status        where it stands
        missing       how many sources have no result
        consumers     nodes that wait for this one
        wanted        lazy inputs the node asked for
        twin          an equal node whose result this one takes
        rows          what its calls returned, while an expansion among them is not done
    Its result:
        entry         the result, until it is let go
        source        where that came from, the first time
        uses          how many nodes may still read it; at zero it is let go
        held          the nodes this one may still read
        inner_ui      what output nodes of its expansion showed
    Its work:
        milliseconds  time spent in its calls
        attempts      how often it was given up for want of memory
        is_claimed    others that need the key wait for this run
        is_started, is_announced    its events have gone out, which they do once
    """

    at: GraphNode
    key: str
    rank: tuple[int, ...]
    display_id: str
    parent: str | None = None
    status: Status = Status.IDLE
    missing: int = 0
    consumers: list[str] = field(default_factory=list)
    uses: int = 0
    held: tuple[str, ...] = ()
    wanted: frozenset[str] = frozenset()
    twin: str | None = None
    rows: Sequence[Row] = ()
    inner_ui: tuple[InnerUi, ...] = ()
    entry: Entry | None = None
    source: Source | None = None
    milliseconds: float = 0.0
    id: str = field(init=False)
    node: Node = field(init=False)
    is_started: bool = False
    is_announced: bool = False
    is_claimed: bool = False
    attempts: int = 0

    def __post_init__(self) -> None:
        self.id, self.node = self.at.id, self.at.node

    @property
    def has_result(self) -> bool:
        """Whether the result is there, and not let go."""
        return self.entry is not None and self.status is Status.DONE

    def sources(self) -> list[str]:
        """The nodes whose results must be there before this one can be called; each once, in the order written."""
        if self.twin is not None:
            return [self.twin]
        lazy = self.node.lazy
        links = {
            value.source: None
            for name, value in self.at.inputs.items()
            if type(value) is Link and (name not in lazy or name in self.wanted)
        }
        return list(links)

    def readable(self) -> list[str]:
        """Every node this one may read, lazy inputs included."""
        if self.twin is not None:
            return [self.twin]
        return list({value.source: None for value in self.at.inputs.values() if type(value) is Link})


def root_of(vertices: Mapping[str, Vertex], node_id: str) -> str:
    """The node of the prompt that a node descends from."""
    while (vertex := vertices.get(node_id)) is not None and vertex.parent is not None:
        node_id = vertex.parent
    return node_id


@dataclass(frozen=True, slots=True)
class Needs:
    """The node asked for these lazy inputs before it can be called."""

    names: set[str]


Work = Generator[Progress | Pending | Joinable, Any, list[Row] | Needs]


def work(
    node: Node,
    instance: Any,
    arguments: Mapping[str, list[Any] | None],
    hidden: Mapping[str, Any],
    context: CallContext,
) -> Work:
    """Ask which lazy inputs are needed, then call. `arguments` holds None for an input without a value so far."""
    given = {name: [None] if values is None else values for name, values in arguments.items()}
    if node.lazy_status is not None:
        wanted = yield from _ask(node, instance, given, hidden)
        absent = {name for name in wanted if arguments.get(name, MISSING) is None}
        unknown = [name for name in wanted if name not in arguments]
        if unknown:
            raise BadValue(f"{node.class_type}.check_lazy_status", unknown[0], f"one of {sorted(arguments)}")
        if absent:
            return Needs(absent)
    return (yield from calls(node, node.bound(node.function, instance), given, hidden, context))


MISSING = object()


def _ask(
    node: Node, instance: Any, given: Mapping[str, list[Any]], hidden: Mapping[str, Any]
) -> Generator[Pending, None, list[str]]:
    """Call `lazy_status` over the lists and unite what it names; calls that a blocker will stop need nothing."""
    asked = (keywords for keywords in slices(node, given, hidden) if blocker_in(node, keywords) is None)
    answers: list[Any] = [node.bound(node.lazy_status, instance)(**keywords) for keywords in asked]
    coroutines = [answer for answer in answers if hasattr(answer, "__await__")]
    if coroutines:
        pending = Pending(coroutines, is_last=False)
        yield pending
        answers = [answer for answer in answers if not hasattr(answer, "__await__")] + list(pending.results)
    return [name for answer in answers if answer is not None for name in answer]
