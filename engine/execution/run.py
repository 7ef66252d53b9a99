"""One run as a state machine: what is needed, what is ready, what came back. It calls nothing and waits for nothing.

A driver takes ready nodes (`take`), does their work wherever and whenever it likes, and reports (`finished`, `failed`).
There are two: `inline.execute`, one run on the calling thread, and `lanes.scheduler`, many runs on several. All methods
are called under one lock; none recurses, however long the chain.

Where a node stands (`Status`), and what moves it on:

    IDLE --needed--> WAITING --last source--> READY --taken--> RUNNING --rows--> DONE
     |               ^  ^  |                  ^ ^ |             | | |             | ^
     |               |  |  |                  | | +--> PARKED   | | |             | |
     |               |  |  |                  | +-- released    | | |             | |
     |               |  |  |                  +---- again ------+ | |             | |
     |               |  +--|------ lazy inputs are asked for -----+ +-> EXPANDED -|-+
     |               +-----|------- let go, and needed again ---------------------+
     |                     |
     +-- in the store      +-- its twin is done, or all nodes of its expansion
     +--> DONE             +--> DONE

- needed: an output is to be made, and nothing between it and the node is kept in the store.
- taken, PARKED: the store lets one run at a time work on a key (`claim`). Where another run is at it, the node waits
  for it. That run keeps the result (the node is DONE when it is taken again) or gives it up.
- again: memory ran out, and the driver tries once more.
- let go: values that nobody can read any more are dropped (values.py); an expansion may need one again.
- EXPANDED: the node put others in its place, and has a result when they have theirs.

What a run knows:

    vertices    every node by id, those that expansions made included: where it stands, whom it waits for (`Vertex`)
    keys        content keys by id, and which nodes are volatile: nothing may stand in for their work
    values      who may still read which result, and what a node is called with
    report      what has been said about the nodes, and what is said at the end
    error       why it ended early, if it did
    _reuse      what may stand for a node's work, and what is kept of it (reuse.py)
    _open       outputs without a result; the run is over when there is none
    _ready      nodes that can be worked on, by lane, and parked ones
    _running    nodes a driver is at work on
    _settled    nodes that have a result of which their readers have not heard

Which ready node is next: the first in the plan's order, depth first: one output is finished before another begins.
Nodes of an expansion stand where their parent stood (`Vertex.rank`). So few values are alive at once, and the order is
the same every time.

For a chain a -> b -> show, nothing of it kept, this is the whole story (tests/execution/test_story.py plays it):

    call            a        b        show
    start()         READY    WAITING  WAITING  b and show are each in the `consumers` of their source
    take()          RUNNING  WAITING  WAITING  a's key is claimed
    finished(a)     DONE     READY    WAITING  a is kept in the store; b.missing: 1 -> 0
    take()          DONE     RUNNING  WAITING
    finished(b)     DONE     DONE     READY    nobody reads a any more: a.entry is let go
    take()          DONE     DONE     RUNNING
    finished(show)  DONE     DONE     DONE     _open is empty: is_over
"""

from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from sigmagraph.engine.errors import Cancelled, EngineError, NodeFailed, StaleFile
from sigmagraph.engine.execution.cache.memory import Entry
from sigmagraph.engine.execution.cache.result_store import Found, ResultStore
from sigmagraph.engine.execution.calling.calls import merge_ui
from sigmagraph.engine.execution.calling.hidden import HiddenValues
from sigmagraph.engine.execution.events import Source
from sigmagraph.engine.execution.expand import grow, outputs_among, result_links
from sigmagraph.engine.execution.ready import ReadyNodes
from sigmagraph.engine.execution.report import Emit, RunReport
from sigmagraph.engine.execution.result import RunResult
from sigmagraph.engine.execution.reuse import RunReuse
from sigmagraph.engine.execution.values import RunValues
from sigmagraph.engine.execution.vertex import Needs, Status, Vertex, root_of
from sigmagraph.engine.graph.node import Lane, Services
from sigmagraph.engine.graph.pause import no_collection
from sigmagraph.engine.graph.plan import Plan
from sigmagraph.engine.graph.results import Row


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
        reuses_outputs: bool = False,
    ) -> None:
        self.plan, self.store, self.emit, self._on_wake = plan, store, emit, on_wake
        self.keys = plan.keys.fork()
        with no_collection():
            self.vertices: dict[str, Vertex] = {
                i: Vertex(plan.nodes[i], plan.keys.by_id[i], (rank,), i) for rank, i in enumerate(plan.order)
            }
        self.values = RunValues(self.vertices, plan.roots)
        self.report = RunReport(plan, self.vertices, store, emit)
        self.hidden = HiddenValues(plan.graph, services, extra_data, self)
        self.error: EngineError | None = None
        self._reuse = RunReuse(self.vertices, self.keys, store, services, reuses_outputs)
        self._open = set(plan.roots)
        self._ready = ReadyNodes(self.vertices, on_wake)
        self._running: set[str] = set()
        self._settled: deque[Vertex] = deque()
        self._expansions = count()

    # -- for the driver ------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.error is not None or not self._open

    def shown_by(self, node_id: str) -> Mapping[str, Any]:
        """The user-interface record of a node's result, empty where it has none."""
        return self.report.shown_by(node_id)

    @property
    def is_parked(self) -> bool:
        """Whether a node waits for equal work of another run."""
        return self._ready.has_parked

    def start(self) -> None:
        """Find what is needed and what is there already."""
        self.report.begun([i for i in self.plan.nodes if self._reuse.may_find(i)])
        with no_collection():
            for root in self.plan.roots:
                self._need(root)

    def take(self, lane: Lane | None = None) -> Vertex | None:
        """The next node to work on, or None. With nothing ready, running or parked, the rest waits for itself."""
        self._ready.unpark()
        while not self.is_over:
            vertex = self._ready.pop(lane)
            if vertex is None:
                if not self._running and not self.is_parked and not self._ready:
                    self._end_in_a_cycle()
                return None
            if self._begin(vertex):
                return vertex
        return None

    def peek(self, lane: Lane) -> Vertex | None:
        """The node `take` would look at next."""
        self._ready.unpark()
        return None if self.is_over else self._ready.peek(lane)

    def needed(self, lane: Lane) -> list[str]:
        """The classes of the nodes in a lane that wait or are ready, one entry per node."""
        waiting = (Status.WAITING, Status.READY)
        return [v.node.class_type for v in self.vertices.values() if v.status in waiting and v.node.lane == lane]

    def again(self, vertex: Vertex) -> None:
        """Put a node back whose work was given up half-way; it will be called anew."""
        self._running.discard(vertex.id)
        vertex.attempts += 1
        self._ready.push(vertex)

    def finished(self, vertex: Vertex, result: list[Row] | Needs, milliseconds: float) -> None:
        """A node's work came back."""
        self._running.discard(vertex.id)
        if self.is_over:
            return
        vertex.milliseconds += milliseconds
        if isinstance(result, Needs):
            vertex.wanted |= result.names
            vertex.status = Status.WAITING
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
        self._end(NodeFailed(root.id, root.node.class_type, reason), error)
        self.report.failed(vertex, reason, error, inputs)
        if isinstance(error, StaleFile):
            self.store.clear()  # what was made of the file would fail the next run too

    def break_off(self, error: Exception) -> None:
        """The engine itself failed at this run: it ends as if the node that is being worked on had failed."""
        where = next((self.vertices[i] for i in (*self._running, *self.plan.roots) if i in self.vertices), None)
        if where is not None:
            self.failed(where, error, {})

    def give_up(self, vertex: Vertex | None = None) -> None:
        """Stop on request, in or before a node."""
        if self.is_over:
            return
        where = vertex or next((self.vertices[i] for i in self._running), None) or self._ready.peek()
        place = f" in node {where.id} ({where.node.class_type})" if where else ""
        self._end(Cancelled(f"stopped on request{place}"))
        self.report.given_up(where)

    def unclaim(self) -> None:
        """At the end of a run: whoever waits for work of ours does it alone."""
        self._reuse.unclaim(self.vertices.values())

    def result(self) -> RunResult:
        """What the run leaves behind."""
        return self.report.result(self.error)

    def root_id(self, node_id: str) -> str:
        """The node of the prompt a node descends from."""
        return root_of(self.vertices, node_id)

    # -- needing: IDLE -> WAITING -> READY -----------------------------------------------------------------------

    def _need(self, node_id: str) -> None:
        """Make a node and everything it depends on wait, as far as results are not there yet."""
        waiting = [node_id]
        while waiting:
            vertex = self.vertices[waiting.pop()]
            if vertex.status is not Status.IDLE and not (vertex.status is Status.DONE and vertex.entry is None):
                continue
            if (found := self._reuse.find(vertex)) is not None:
                self._settle(vertex, found.entry, found.source)
                continue
            vertex.status = Status.WAITING
            vertex.twin = self._reuse.twin(vertex)
            self.values.hold(vertex, vertex.readable())
            waiting += reversed(self._missing(vertex, vertex.sources()))
        self._settle_all()

    def _wait_for(self, vertex: Vertex, sources: list[str]) -> None:
        """Wait for more nodes than at first."""
        for source in self._missing(vertex, sources):
            self._need(source)

    def _missing(self, vertex: Vertex, sources: list[str]) -> list[str]:
        """Enter the vertex with each source that has no result; it goes on at once if there is none."""
        missing = [source for source in sources if not self.vertices[source].has_result]
        vertex.missing = len(missing)
        for source in missing:
            self.vertices[source].consumers.append(vertex.id)
        if not missing:
            self._go_on(vertex)
        return missing

    def _go_on(self, vertex: Vertex) -> None:
        """Everything it waited for is there: its twin's result, those of its expansion, or what it is called with."""
        if vertex.twin is not None:
            entry = self.vertices[vertex.twin].entry
            assert entry is not None
            self._reuse.copied(vertex, vertex.twin)
            self._settle(vertex, entry, "memory")
        elif vertex.rows:
            self._complete(vertex)
        else:
            self._ready.push(vertex)

    # -- taking: READY -> RUNNING, PARKED or DONE ----------------------------------------------------------------

    def _begin(self, vertex: Vertex) -> bool:
        """Whether this run is to do the work: not if the result just appeared, nor while somebody else is at it."""
        claimed = self._reuse.claim(vertex, self._ready.waker(vertex))
        if isinstance(claimed, Found):
            self._settle(vertex, claimed.entry, claimed.source)
            self._settle_all()
            self._on_wake()  # what reads it may be for another lane
            return False
        if not claimed:
            self._ready.park(vertex)
            return False
        vertex.status = Status.RUNNING
        self._running.add(vertex.id)
        self.report.started(vertex)
        return True

    # -- results: RUNNING -> DONE or EXPANDED --------------------------------------------------------------------

    def _returned(self, vertex: Vertex, rows: list[Row]) -> None:
        self.report.blocked(vertex, rows)
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
            fresh = grow(vertex, expansion, self.plan.graph, self.keys, self.vertices, next(self._expansions))
            self.vertices.update(fresh)
            self.report.expanded(vertex, list(fresh))
            roots += outputs_among(expansion, fresh, self.hidden.get_node)
            sources |= dict.fromkeys(link.source for link in result_links(expansion))
        self.values.hold(vertex, sources)
        self._open.update(roots)
        for root in roots:
            self._need(root)
        return list({**sources, **dict.fromkeys(roots)})

    def _complete(self, vertex: Vertex) -> None:
        """All rows are there: make the entry, keep it, settle."""
        ui = merge_ui([row.ui for row in vertex.rows])
        entry = Entry(self.values.outputs(vertex), ui, vertex.milliseconds, vertex.inner_ui)
        vertex.rows = ()
        self._reuse.keep(vertex, entry)
        self._settle(vertex, entry, "executed")

    def _settle(self, vertex: Vertex, entry: Entry, source: Source) -> None:
        """A result is there; a node whose value was let go and is wanted again keeps the story of the first time."""
        vertex.entry, vertex.status = entry, Status.DONE
        vertex.source = vertex.source or source
        self._settled.append(vertex)

    def _settle_all(self) -> None:
        """Report results, tell who waits for them, let go of values nobody reads any more."""
        while self._settled:
            vertex = self._settled.popleft()
            self.report.finished(vertex)
            consumers, vertex.consumers = vertex.consumers, []
            for consumer in consumers:
                waiting = self.vertices[consumer]
                waiting.missing -= 1
                if not waiting.missing and waiting.status in (Status.WAITING, Status.EXPANDED):
                    self._go_on(waiting)
            self.values.settled(vertex)
            self._open.discard(vertex.id)

    # -- the end -------------------------------------------------------------------------------------------------

    def _end(self, error: EngineError, cause: BaseException | None = None) -> None:
        self.unclaim()
        self.error = error
        self.error.__cause__ = cause

    def _end_in_a_cycle(self) -> None:
        stuck = next(v for v in self.vertices.values() if v.status in (Status.WAITING, Status.EXPANDED))
        made = next((v for v in self.vertices.values() if v.parent and v.status is Status.WAITING), stuck)
        root = self.vertices[self.root_id(made.id)]
        error = NodeFailed(made.display_id, root.node.class_type, "dependency cycle detected")
        self._end(error)
        self.report.failed(made, "Dependency cycle detected", error, {})
