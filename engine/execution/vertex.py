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
    """Where a node stands. IDLE nodes are not needed so far; PARKED ones wait for equal work of somebody else."""

    IDLE = "idle"
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    EXPANDED = "expanded"
    DONE = "done"


@dataclass(slots=True)
class Vertex:
    """One node of one run.

    `missing` counts sources without a result; `consumers` wait for this one; `uses` counts nodes that may still read
    the value, which is let go at zero; `held` are the nodes this one may still read; `wanted` are lazy inputs the
    node asked for; `twin` is an equal node whose result this one takes; `rows` are results that wait for the nodes
    of an expansion, and `inner_ui` what output nodes among them showed.
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

    def sources(self) -> list[str]:
        """The nodes whose results must be there before this one can be called; each once, in the order written."""
        if self.twin is not None:
            return [self.twin]
        declared = self.at.node.declared
        links = {
            value.source: None
            for name, value in self.at.inputs.items()
            if type(value) is Link and (name in self.wanted or name not in declared or not declared[name].is_lazy)
        }
        return list(links)

    def readable(self) -> list[str]:
        """Every node this one may read, lazy inputs included."""
        if self.twin is not None:
            return [self.twin]
        return list({value.source: None for value in self.at.inputs.values() if type(value) is Link})


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
