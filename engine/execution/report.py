"""What one run says: events while it goes on, what its nodes show, and the result at its end."""

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.execution import events
from sigmagraph.engine.execution.cache.memory import Entry, InnerUi
from sigmagraph.engine.execution.cache.result_store import ResultStore
from sigmagraph.engine.execution.result import NodeReport, RunResult
from sigmagraph.engine.execution.vertex import Status, Vertex, root_of
from sigmagraph.engine.graph.plan import Plan
from sigmagraph.engine.graph.results import Row

Emit = Callable[[events.Event], None]


class RunReport:
    """Turns what happened to vertices into events; keeps what they show (`ui`) for the result."""

    def __init__(self, plan: Plan, vertices: Mapping[str, Vertex], store: ResultStore, emit: Emit) -> None:
        self._plan, self._vertices, self._store, self._emit = plan, vertices, store, emit
        self._ui: dict[str, Mapping[str, Any]] = {}
        self._inner: dict[str, NodeReport] = {}

    def shown_by(self, node_id: str) -> Mapping[str, Any]:
        """What a node showed, in this run or, of a sampler whose result was not needed, when it was made."""
        vertex = self._vertices.get(node_id)
        if node_id in self._ui or vertex is None or vertex.source is not None or vertex.node.lane != "device":
            return self._ui.get(node_id, {})
        found = self._store.find(vertex.key)
        return (found.entry.ui if found is not None else None) or {}

    def begun(self, kept: Sequence[str]) -> None:
        """The run begins, and the results of these are there already."""
        self._emit(events.RunStarted(kept))

    def started(self, vertex: Vertex) -> None:
        """The node is about to be called, for the first time."""
        if not vertex.is_started:
            vertex.is_started = True
            self._emit(events.NodeStarted(vertex.id, vertex.node.class_type, vertex.display_id))

    def blocked(self, vertex: Vertex, rows: Iterable[Row]) -> None:
        """What blockers with a message said to this node."""
        for row in rows:
            if row.blocked is not None and row.blocked.message is not None:
                self._emit(events.NodeBlocked(vertex.id, vertex.node.class_type, row.blocked.message))

    def expanded(self, vertex: Vertex, new_ids: Sequence[str]) -> None:
        """The node put these in its place."""
        self._emit(events.NodeExpanded(vertex.id, new_ids))

    def finished(self, vertex: Vertex) -> None:
        """The node has its result, for the first time."""
        if vertex.is_announced:
            return
        vertex.is_announced = True
        entry, source = vertex.entry, vertex.source
        assert entry is not None
        assert source is not None
        if entry.ui is not None:
            self._ui[vertex.id] = entry.ui
        if vertex.parent is not None or entry.inner_ui:
            self._show_inner(vertex, entry)
        spent = vertex.milliseconds if source == "executed" else 0.0
        self._emit(events.NodeFinished(vertex.id, vertex.node.class_type, vertex.display_id, source, spent, entry.ui))

    def failed(self, vertex: Vertex, reason: str, error: BaseException, inputs: Mapping[str, Any]) -> None:
        """The run is over: the node raised `error`."""
        self._emit(
            events.RunFailed(
                root_of(self._vertices, vertex.id),
                vertex.node.class_type,
                reason,
                _qualified(error),
                traceback.format_tb(error.__traceback__),
                inputs,
                self._executed(),
                vertex.id,
            )
        )

    def given_up(self, vertex: Vertex | None) -> None:
        """The run is over: it was stopped in or before this node."""
        node_id, class_type = ("", "")
        if vertex is not None:
            node_id, class_type = root_of(self._vertices, vertex.id), vertex.node.class_type
        self._emit(events.RunCancelled(node_id, class_type, self._executed()))

    def result(self, error: EngineError | None) -> RunResult:
        """What the run leaves behind: nodes of the prompt first, then those that expansions made."""
        nodes = self._plan.nodes
        reports = {i: self._node(i, error) for i in (*nodes, *(i for i in self._vertices if i not in nodes))}
        reports |= self._inner
        roots = {root: self._vertices[root].entry for root in self._plan.roots}
        values = {root: entry.outputs for root, entry in roots.items() if entry is not None}
        ui = {node_id: shown for node_id in self._vertices if (shown := self.shown_by(node_id))}
        return RunResult(reports, {**self._ui, **ui}, values, error)

    def _node(self, node_id: str, error: EngineError | None) -> NodeReport:
        vertex = self._vertices.get(node_id)
        if vertex is None:
            return NodeReport(self._plan.nodes[node_id].node.class_type, "unneeded")
        class_type = vertex.node.class_type
        if vertex.source is not None:
            return NodeReport(class_type, vertex.source, vertex.milliseconds if vertex.source == "executed" else 0.0)
        if error is not None and vertex.status is Status.RUNNING:
            return NodeReport(class_type, "failed", vertex.milliseconds)
        return NodeReport(class_type, self._store.where(vertex.key) or "unneeded")

    def _show_inner(self, vertex: Vertex, entry: Entry) -> None:
        """Show what output nodes inside a cached expansion showed; let the parent of a new node remember it."""
        if vertex.source != "executed":
            for inner in entry.inner_ui:
                inner_id, kind = vertex.id + inner.suffix, inner.class_type
                self._ui[inner_id], self._inner[inner_id] = inner.ui, NodeReport(kind, "memory")
                shown_for = inner.display_id or vertex.display_id
                there = self._plan.nodes.get(shown_for)  # another node may have its id by now
                display_id = shown_for if there is not None and there.node.class_type == kind else vertex.display_id
                self._emit(events.NodeFinished(inner_id, kind, display_id, "memory", 0.0, inner.ui))
        if vertex.parent is None:
            return
        suffix = vertex.id.removeprefix(vertex.parent)
        parent = self._vertices[vertex.parent]
        own = None if vertex.display_id == parent.display_id else vertex.display_id
        shown = [
            InnerUi(suffix + below.suffix, below.class_type, below.ui, below.display_id or own)
            for below in entry.inner_ui
        ]
        if vertex.node.output_node and entry.ui is not None:
            shown.append(InnerUi(suffix, vertex.node.class_type, entry.ui, own))
        parent.inner_ui += tuple(shown)

    def _executed(self) -> list[str]:
        return [i for i, vertex in self._vertices.items() if vertex.status is Status.DONE]


def _qualified(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
