"""Values that a lazy input may still ask for are not let go before it is certain that it does not."""

from collections.abc import Mapping

from sigmagraph.engine.execution.vertex import Vertex
from sigmagraph.engine.graph.workflow import Link


class LazyValues:
    """Knows which results could be wanted late: those behind lazy links, while a node with lazy links is not done."""

    def __init__(self, vertices: Mapping[str, Vertex]) -> None:
        self._open: set[str] = set()
        self._postponed: list[Vertex] = []
        self._keys: set[str] = set()
        lazy = [vertex for vertex in vertices.values() if vertex.node.lazy]
        waiting = [source for vertex in lazy for source in _lazy_sources(vertex)]
        seen: set[str] = set()
        while waiting:
            node_id = waiting.pop()
            if node_id not in seen and node_id in vertices:
                seen.add(node_id)
                self._keys.add(vertices[node_id].key)
                waiting += vertices[node_id].readable()

    def needed(self, vertex: Vertex) -> None:
        """A node is going to be called; it may ask for more later."""
        if self._keys and vertex.node.lazy:
            self._open.add(vertex.id)

    def let_go(self, source: Vertex) -> None:
        """Nobody is known to read the value any more."""
        if self._open and source.key in self._keys:
            self._postponed.append(source)
        else:
            source.entry = None

    def settled(self, vertex: Vertex) -> None:
        """A node is done; with the last one that could ask, what was kept for it goes."""
        if vertex.id in self._open:
            self._open.discard(vertex.id)
            if not self._open:
                for source in self._postponed:
                    if source.uses <= 0:
                        source.entry = None
                self._postponed.clear()


def _lazy_sources(vertex: Vertex) -> list[str]:
    lazy = vertex.node.lazy
    return [value.source for name, value in vertex.at.inputs.items() if type(value) is Link and name in lazy]
