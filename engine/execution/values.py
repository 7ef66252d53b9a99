"""The values on a run's edges: what a node is called with, what it gave, and how long either is kept."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sigmagraph.engine.execution.calling.calls import Spread, merge
from sigmagraph.engine.execution.lazy_values import LazyValues
from sigmagraph.engine.execution.vertex import Status, Vertex
from sigmagraph.engine.graph.results import Row
from sigmagraph.engine.graph.workflow import Link, as_link


class RunValues:
    """Each vertex holds its own value (`entry`) until nobody can read it any more; those of `kept` nodes stay."""

    def __init__(self, vertices: Mapping[str, Vertex], kept: Collection[str]) -> None:
        self._vertices, self._kept = vertices, frozenset(kept)
        self._lazy = LazyValues(vertices)

    def arguments(self, vertex: Vertex) -> dict[str, list[Any] | None]:
        """Each input's list; None for a lazy input that was not asked for, whether or not its value is there.

        Otherwise a result would depend on what else ran first, or on what some cache still holds.
        """
        lazy, raw_links = vertex.node.lazy, vertex.node.raw_links
        given: dict[str, list[Any] | None] = {}
        for name, value in vertex.at.inputs.items():
            if type(value) is not Link:
                given[name] = [value]
            elif name in raw_links:
                given[name] = [list(value)]
            elif name in lazy and name not in vertex.wanted:
                given[name] = None
            else:
                given[name] = self._of(value)
        return given

    def outputs(self, vertex: Vertex) -> tuple[list[Any], ...]:
        """A list per slot, from the rows of a vertex; what an expansion gives back is read from its nodes."""
        return merge(vertex.node, [self._row(row) for row in vertex.rows])

    def hold(self, vertex: Vertex, sources: Iterable[str]) -> None:
        """The vertex may read these; their values stay until it is done."""
        self._lazy.needed(vertex)
        known = tuple(source for source in sources if source in self._vertices)
        for source in known:
            self._vertices[source].uses += 1
        vertex.held += known

    def settled(self, vertex: Vertex) -> None:
        """The vertex is done and reads nothing any more."""
        held, vertex.held = vertex.held, ()
        for source in (self._vertices[i] for i in held):
            source.uses -= 1
            if source.uses <= 0 and source.status is Status.DONE and source.id not in self._kept:
                self._lazy.let_go(source)
        self._lazy.settled(vertex)

    def _of(self, link: Link) -> list[Any] | None:
        vertex = self._vertices.get(link.source)
        if vertex is None or vertex.entry is None:
            return None
        outputs = vertex.entry.outputs
        return outputs[link.slot] if link.slot < len(outputs) else [None]

    def _row(self, row: Row) -> list[Any]:
        if row.expansion is None:
            return list(row.values)
        values: list[Any] = []
        for item in row.expansion.result or ():
            link = as_link(item)
            values.append(item if link is None else Spread(self._of(link) or []))
        return values
