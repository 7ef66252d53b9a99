"""One run as a state machine: what is needed, what is ready, what came back. It calls nothing and waits for nothing.

A driver takes ready nodes (`take`), does their work wherever and whenever it likes, and reports (`finished`,
`failed`). All methods must be called under one lock; none recurses, however long the chain.
"""

import heapq
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

from sigmagraph.engine.errors import Cancelled, EngineError, NodeFailed
from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import Entry, InnerUi
from sigmagraph.engine.execution.cache.result_store import Found, ResultStore
from sigmagraph.engine.execution.calling.calls import Spread, merge, merge_ui
from sigmagraph.engine.execution.calling.hidden import HiddenValues
from sigmagraph.engine.execution.expand import grow, result_links
from sigmagraph.engine.execution.lazy_values import LazyValues
from sigmagraph.engine.execution.result import NodeReport, RunResult
from sigmagraph.engine.execution.vertex import Needs, Status, Vertex
from sigmagraph.engine.graph.node import Lane, Services
from sigmagraph.engine.graph.pause import no_collection
from sigmagraph.engine.graph.plan import Plan
from sigmagraph.engine.graph.results import Row
from sigmagraph.engine.graph.workflow import Link, as_link

Emit = Callable[[events.Event], None]


class Run:
    """A plan being executed."""

    def __init__(
        self,
        plan: Plan,
        services: Services | None,
        store: ResultStore,
        emit: Emit,
        extra_data: Mapping[str, Any],
        on_wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan, self.store, self.emit, self._on_wake = plan, store, emit, on_wake
        self.keys = plan.keys.fork()
        with no_collection():
            self.vertices: dict[str, Vertex] = {
                i: Vertex(plan.nodes[i], plan.keys.by_id[i], (rank,), i) for rank, i in enumerate(plan.order)
            }
        self.hidden = HiddenValues(plan.graph, services, extra_data, self)
        self.error: EngineError | None = None
        self.ui: dict[str, Mapping[str, Any]] = {}
        self._lazy = LazyValues(self.vertices)
        self._kept = set(plan.roots)
        self._open = set(plan.roots)
        self._ready: dict[Lane, list[tuple[tuple[int, ...], int, str]]] = {"device": [], "host": []}
        self._running: set[str] = set()
        self._parked: set[str] = set()
        self._woken: SimpleQueue[str] = SimpleQueue()
        self._first: dict[str, str] = {}
        self._stale: set[str] = set()
        self._settled: deque[Vertex] = deque()
        self._turns = count()

    # -- for the driver ------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.error is not None or not self._open

    @property
    def is_idle(self) -> bool:
        """Whether no node is being worked on."""
        return not self._running

    @property
    def is_parked(self) -> bool:
        """Whether a node waits for equal work of another run."""
        return bool(self._parked)

    def start(self) -> None:
        """Find what is needed and what is there already."""
        self.emit(events.RunStarted(self._cached()))
        with no_collection():
            for root in self.plan.roots:
                self._need(root)

    def take(self, lane: Lane | None = None) -> Vertex | None:
        """The next node to work on, or None. With nothing ready, running or parked, the rest waits for itself."""
        self._unpark()
        while not self.is_over:
            heap = self._heap(lane)
            if heap is None:
                if not self._running and not self._parked and not any(self._ready.values()):
                    self._report_cycle()
                return None
            vertex = self.vertices[heapq.heappop(heap)[2]]
            if self._begin(vertex):
                return vertex
        return None

    def peek(self, lane: Lane) -> Vertex | None:
        """The node `take` would look at next."""
        self._unpark()
        heap = None if self.is_over else self._heap(lane)
        return self.vertices[heap[0][2]] if heap else None

    def needed(self, lane: Lane) -> list[str]:
        """The classes of the nodes in a lane that wait or are ready, one entry per node."""
        waiting = (Status.WAITING, Status.READY)
        return [v.node.class_type for v in self.vertices.values() if v.status in waiting and v.node.lane == lane]

    def again(self, vertex: Vertex) -> None:
        """Put a node back whose work was given up half-way; it will be called anew."""
        self._running.discard(vertex.id)
        vertex.attempts += 1
        self._push(vertex)

    def arguments(self, vertex: Vertex) -> dict[str, list[Any] | None]:
        """Each input's list; None for a lazy input that was not asked for, whether or not its value is there.

        Otherwise a result would depend on what else ran first, or on what some cache still holds.
        """
        declared = vertex.node.declared
        given: dict[str, list[Any] | None] = {}
        for name, value in vertex.at.inputs.items():
            if type(value) is not Link:
                given[name] = [value]
            elif name in declared and declared[name].options.get("rawLink"):
                given[name] = [list(value)]
            elif name in declared and declared[name].is_lazy and name not in vertex.wanted:
                given[name] = None
            else:
                given[name] = self._slot(value)
        return given

    def finished(self, vertex: Vertex, result: list[Row] | Needs, milliseconds: float) -> None:
        """A node's work came back."""
        self._running.discard(vertex.id)
        if self.is_over:
            return
        vertex.milliseconds += milliseconds
        if isinstance(result, Needs):
            vertex.wanted |= result.names
            self._wait_for(vertex, vertex.sources())
        else:
            self._returned(vertex, result)
        self._settle_all()

    def failed(self, vertex: Vertex, error: BaseException, inputs: Mapping[str, Any]) -> None:
        """A node's work raised: the run is over."""
        self._running.discard(vertex.id)
        if self.is_over:
            return
        if isinstance(error, Cancelled):
            self.give_up(vertex)
            return
        root = self.vertices[self.root_id(vertex.id)]
        reason = str(error) or type(error).__name__
        self.unclaim()
        self.error = NodeFailed(root.id, root.node.class_type, reason)
        self.error.__cause__ = error
        self._fail(vertex, root, reason, error, inputs)

    def break_off(self, error: Exception) -> None:
        """The engine itself failed at this run: it ends as if the node that is being worked on had failed."""
        where = next((self.vertices[i] for i in (*self._running, *self.plan.roots) if i in self.vertices), None)
        if where is not None:
            self.failed(where, error, {})

    def give_up(self, vertex: Vertex | None = None) -> None:
        """Stop on request, in or before a node."""
        if self.is_over:
            return
        where = vertex or next((self.vertices[i] for i in self._running), None) or self._next_ready()
        place = f" in node {where.id} ({where.node.class_type})" if where else ""
        self.unclaim()
        self.error = Cancelled(f"stopped on request{place}")
        node_id, class_type = (self.root_id(where.id), where.node.class_type) if where else ("", "")
        self.emit(events.RunCancelled(node_id, class_type, self._executed()))

    def unclaim(self) -> None:
        """At the end of a run: whoever waits for work of ours does it alone."""
        for vertex in self.vertices.values():
            if vertex.is_claimed:
                vertex.is_claimed = False
                self.store.release(vertex.key)

    def result(self) -> RunResult:
        """What the run leaves behind."""
        reports = {
            i: self._report(i) for i in (*self.plan.nodes, *(v for v in self.vertices if v not in self.plan.nodes))
        }
        values = {root: self._outputs(root) for root in self.plan.roots if self.vertices[root].entry is not None}
        return RunResult(reports, dict(self.ui), values, self.error)

    def root_id(self, node_id: str) -> str:
        """The node of the prompt a node descends from."""
        while (vertex := self.vertices.get(node_id)) is not None and vertex.parent is not None:
            node_id = vertex.parent
        return node_id

    # -- taking --------------------------------------------------------------------------------------------------

    def _heap(self, lane: Lane | None) -> list[tuple[tuple[int, ...], int, str]] | None:
        heaps = [heap for each, heap in self._ready.items() if heap and lane in (None, each)]
        return min(heaps, key=lambda heap: heap[0]) if heaps else None

    def _begin(self, vertex: Vertex) -> bool:
        """Whether this run is to do the work: not if the result just appeared, nor while somebody else is at it."""
        if not vertex.is_claimed and self._is_shared(vertex):
            claimed = self.store.claim(vertex.key, partial(self._wake, vertex.id))
            if isinstance(claimed, Found):
                self._settle(vertex, claimed.entry, claimed.source)
                self._settle_all()
                self._on_wake()  # what reads it may be for another lane
                return False
            if not claimed:
                vertex.status = Status.PARKED
                self._parked.add(vertex.id)
                return False
            vertex.is_claimed = True
        vertex.status = Status.RUNNING
        self._running.add(vertex.id)
        if not vertex.is_started:
            vertex.is_started = True
            self.emit(events.NodeStarted(vertex.id, vertex.node.class_type, vertex.display_id))
        return True

    def _wake(self, node_id: str) -> None:
        """Called from anywhere when equal work ended."""
        self._woken.put(node_id)
        self._on_wake()

    def _unpark(self) -> None:
        while not self._woken.empty():
            vertex = self.vertices[self._woken.get()]
            self._parked.discard(vertex.id)
            if vertex.status is Status.PARKED:
                self._push(vertex)

    def _is_shared(self, vertex: Vertex) -> bool:
        """Whether the result may be taken from elsewhere: output nodes act, volatile ones never repeat."""
        return not vertex.node.output_node and vertex.id not in self.keys.volatile

    # -- needing -------------------------------------------------------------------------------------------------

    def _need(self, node_id: str) -> None:
        """Make a node and everything it depends on wait, as far as results are not there yet."""
        waiting = [node_id]
        while waiting:
            vertex = self.vertices[waiting.pop()]
            if vertex.status is not Status.IDLE and not (vertex.status is Status.DONE and vertex.entry is None):
                continue
            self._lazy.needed(vertex)
            if self._is_shared(vertex) and (found := self.store.find(vertex.key)) is not None:
                self._settle(vertex, found.entry, found.source)
                continue
            vertex.status = Status.WAITING
            vertex.twin = self._twin(vertex)
            self._hold(vertex, vertex.readable())
            waiting += reversed(self._missing(vertex, vertex.sources()))
        self._settle_all()

    def _wait_for(self, vertex: Vertex, sources: list[str]) -> None:
        """Wait for more nodes than at first."""
        vertex.status = Status.WAITING
        for source in self._missing(vertex, sources):
            self._need(source)

    def _missing(self, vertex: Vertex, sources: list[str]) -> list[str]:
        """Enter the vertex with each source that has no result; ready at once if there is none."""
        missing = [source for source in sources if not self._has_result(source)]
        vertex.missing = len(missing)
        for source in missing:
            self.vertices[source].consumers.append(vertex.id)
        if not missing:
            self._push(vertex)
        return missing

    def _has_result(self, node_id: str) -> bool:
        vertex = self.vertices[node_id]
        return vertex.status is Status.DONE and vertex.entry is not None

    def _twin(self, vertex: Vertex) -> str | None:
        """An equal node whose result will be there, or is."""
        first = self._first.setdefault(vertex.key, vertex.id)
        if first == vertex.id:
            return None
        other = self.vertices[first]
        if other.status is Status.DONE and other.entry is None:
            self._first[vertex.key] = vertex.id
            return None
        return first

    def _push(self, vertex: Vertex) -> None:
        if vertex.twin is not None:
            entry = self.vertices[vertex.twin].entry
            assert entry is not None
            if vertex.twin in self._stale:
                self._stale.add(vertex.id)
            self._settle(vertex, entry, "memory")
        elif vertex.rows:
            self._complete(vertex)
        else:
            vertex.status = Status.READY
            heapq.heappush(self._ready[vertex.node.lane], (vertex.rank, next(self._turns), vertex.id))

    def _next_ready(self) -> Vertex | None:
        heap = self._heap(None)
        return self.vertices[heap[0][2]] if heap else None

    # -- results -------------------------------------------------------------------------------------------------

    def _slot(self, link: Link) -> list[Any] | None:
        vertex = self.vertices.get(link.source)
        if vertex is None or vertex.entry is None:
            return None
        outputs = vertex.entry.outputs
        return outputs[link.slot] if link.slot < len(outputs) else [None]

    def _returned(self, vertex: Vertex, rows: list[Row]) -> None:
        for row in rows:
            if row.blocked is not None and row.blocked.message is not None:
                self.emit(events.NodeBlocked(vertex.id, vertex.node.class_type, row.blocked.message))
        vertex.rows = rows
        if all(row.expansion is None for row in rows):
            self._complete(vertex)
            return
        try:
            sources = self._expand(vertex, rows)
        except EngineError as error:
            self.failed(vertex, error, {})
            return
        vertex.status = Status.EXPANDED
        self._wait_for(vertex, sources)

    def _expand(self, vertex: Vertex, rows: list[Row]) -> list[str]:
        """Take the new nodes in; returns the nodes whose results the expanding node gives back."""
        sources: dict[str, None] = {}
        roots: list[str] = []
        for expansion in (row.expansion for row in rows if row.expansion is not None):
            fresh = grow(vertex, expansion, self.plan.graph, self.keys, self.vertices, next(self._turns))
            self.vertices.update(fresh)
            self.emit(events.NodeExpanded(vertex.id, list(fresh)))
            roots += [i for i in expansion.graph if fresh[i].node.output_node]
            sources |= dict.fromkeys(link.source for link in result_links(expansion))
        self._hold(vertex, sources)
        self._open.update(roots)
        for root in roots:
            self._need(root)
        return list({**sources, **dict.fromkeys(roots)})

    def _complete(self, vertex: Vertex) -> None:
        """All rows are there: make the entry, keep it, settle."""
        outputs = merge(vertex.node, [self._row_values(row) for row in vertex.rows])
        ui = merge_ui([row.ui for row in vertex.rows])
        entry = Entry(outputs, ui, vertex.milliseconds, vertex.inner_ui)
        vertex.rows = ()
        if vertex.is_claimed or vertex.id not in self.keys.volatile:
            vertex.is_claimed = False
            self._keep(vertex, entry)
        self._settle(vertex, entry, "executed")

    def _keep(self, vertex: Vertex, entry: Entry) -> None:
        """Under its key, unless a file it was made from changed since the keys were: then it is this run's alone."""
        if self.keys.still_holds(vertex.id) and self._stale.isdisjoint(vertex.held):
            self.store.keep(vertex.key, entry)
        else:
            self._stale.add(vertex.id)
            self.store.release(vertex.key)

    def _row_values(self, row: Row) -> list[Any]:
        if row.expansion is None:
            return list(row.values)
        values: list[Any] = []
        for item in row.expansion.result or ():
            link = as_link(item)
            values.append(item if link is None else Spread(self._slot(link) or []))
        return values

    def _settle(self, vertex: Vertex, entry: Entry, source: events.Source) -> None:
        """A result is there; a node whose value was let go and is wanted again keeps the story of the first time."""
        vertex.entry, vertex.status = entry, Status.DONE
        vertex.source = vertex.source or source
        self._settled.append(vertex)

    def _settle_all(self) -> None:
        """Tell consumers, let go of values nobody reads any more, report."""
        while self._settled:
            vertex = self._settled.popleft()
            if not vertex.is_announced:
                vertex.is_announced = True
                self._announce(vertex)
            consumers, vertex.consumers = vertex.consumers, []
            for consumer in consumers:
                waiting = self.vertices[consumer]
                waiting.missing -= 1
                if not waiting.missing and waiting.status in (Status.WAITING, Status.EXPANDED):
                    self._push(waiting)
            self._release(vertex)
            self._open.discard(vertex.id)

    def _announce(self, vertex: Vertex) -> None:
        entry = vertex.entry
        assert entry is not None
        assert vertex.source is not None
        if entry.ui is not None:
            self.ui[vertex.id] = entry.ui
        self._show_inner(vertex, entry)
        spent = vertex.milliseconds if vertex.source == "executed" else 0.0
        self.emit(
            events.NodeFinished(vertex.id, vertex.node.class_type, vertex.display_id, vertex.source, spent, entry.ui)
        )

    def _show_inner(self, vertex: Vertex, entry: Entry) -> None:
        """Show what output nodes inside a cached expansion showed; let the parent of a new node remember it."""
        if vertex.source != "executed":
            for inner in entry.inner_ui:
                self.ui[vertex.id + inner.suffix] = inner.ui
                inner_id, kind = vertex.id + inner.suffix, inner.class_type
                self.emit(events.NodeFinished(inner_id, kind, vertex.display_id, "memory", 0.0, inner.ui))
        if vertex.parent is None:
            return
        suffix = vertex.id.removeprefix(vertex.parent)
        shown = [InnerUi(suffix + each.suffix, each.class_type, each.ui) for each in entry.inner_ui]
        if vertex.node.output_node and entry.ui is not None:
            shown.append(InnerUi(suffix, vertex.node.class_type, entry.ui))
        self.vertices[vertex.parent].inner_ui += tuple(shown)

    def _hold(self, vertex: Vertex, sources: Iterable[str]) -> None:
        """The vertex may read these; their values stay until it is done."""
        known = tuple(source for source in sources if source in self.vertices)
        for source in known:
            self.vertices[source].uses += 1
        vertex.held += known

    def _release(self, vertex: Vertex) -> None:
        held, vertex.held = vertex.held, ()
        for source in (self.vertices[i] for i in held):
            source.uses -= 1
            if source.uses <= 0 and source.status is Status.DONE and source.id not in self._kept:
                self._lazy.let_go(source)
        self._lazy.settled(vertex)

    # -- the end -------------------------------------------------------------------------------------------------

    def _cached(self) -> list[str]:
        keys, nodes = self.keys.by_id, self.plan.nodes
        return [i for i in nodes if i in keys and keys[i] in self.store and not nodes[i].node.output_node]

    def _report_cycle(self) -> None:
        stuck = next(v for v in self.vertices.values() if v.status in (Status.WAITING, Status.EXPANDED))
        made = next((v for v in self.vertices.values() if v.parent and v.status is Status.WAITING), stuck)
        root = self.vertices[self.root_id(made.id)]
        self.unclaim()
        self.error = NodeFailed(made.display_id, root.node.class_type, "dependency cycle detected")
        self._fail(made, root, "Dependency cycle detected", self.error, {})

    def _fail(self, vertex: Vertex, root: Vertex, reason: str, error: BaseException, inputs: Mapping[str, Any]) -> None:
        self.emit(
            events.RunFailed(
                root.id,
                vertex.node.class_type,
                reason,
                _qualified(error),
                traceback.format_tb(error.__traceback__),
                inputs,
                self._executed(),
                vertex.id,
            )
        )

    def _executed(self) -> list[str]:
        return [i for i, vertex in self.vertices.items() if vertex.status is Status.DONE]

    def _outputs(self, node_id: str) -> tuple[list[Any], ...]:
        entry = self.vertices[node_id].entry
        return entry.outputs if entry is not None else ()

    def _report(self, node_id: str) -> NodeReport:
        vertex = self.vertices.get(node_id)
        if vertex is None:
            return NodeReport(self.plan.nodes[node_id].node.class_type, "unneeded")
        class_type = vertex.node.class_type
        if vertex.source is not None:
            return NodeReport(class_type, vertex.source, vertex.milliseconds if vertex.source == "executed" else 0.0)
        if self.error is not None and vertex.status is Status.RUNNING:
            return NodeReport(class_type, "failed", vertex.milliseconds)
        return NodeReport(class_type, self.store.where(vertex.key) or "unneeded")


def _qualified(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
