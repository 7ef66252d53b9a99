"""What may stand for a node's work: a result in the store, an equal node of this run, equal work of another run.

Three rules hold:

- Volatile nodes never repeat: nothing stands for them, and they stand for nothing.
- Output nodes act. They do so again, unless the run `reuses_outputs` and what they wrote is still there.
- A result made from a file that changed since the keys were made serves this run alone.
"""

from collections.abc import Callable, Iterable, Mapping

from sigmagraph.engine.execution.cache.memory import Entry
from sigmagraph.engine.execution.cache.result_store import Found, ResultStore
from sigmagraph.engine.execution.vertex import Status, Vertex
from sigmagraph.engine.graph.keys import Keys
from sigmagraph.engine.graph.node import Services


class RunReuse:
    """What one run takes from others and leaves to them.

    _first    content key -> the node that does the work; later nodes of that key are its twins
    _stale    nodes made from a file that changed since the keys were made
    """

    def __init__(
        self,
        vertices: Mapping[str, Vertex],
        keys: Keys,
        store: ResultStore,
        services: Services | None,
        reuses_outputs: bool,
    ) -> None:
        self._vertices, self._keys, self._store = vertices, keys, store
        self._services, self._reuses_outputs = services, reuses_outputs
        self._first: dict[str, str] = {}
        self._stale: set[str] = set()

    # -- instead of working --------------------------------------------------------------------------------------

    def find(self, vertex: Vertex) -> Found | None:
        """The result in the store, if it may stand for the work."""
        if self._is_shared(vertex):
            return self._store.find(vertex.key)
        if not self._reuses_outputs or vertex.id in self._keys.volatile:
            return None
        found = self._store.find(vertex.key)
        if found is None or not self._store.outputs.are_there(vertex.key, found.entry.ui, self._services):
            return None
        return found

    def may_find(self, node_id: str) -> bool:
        """The same of a node of the prompt, without a look at the disk tier's files."""
        vertex = self._vertices.get(node_id)
        if vertex is None or vertex.key not in self._store:
            return False
        return not vertex.node.output_node or self.find(vertex) is not None

    def twin(self, vertex: Vertex) -> str | None:
        """An equal node whose result will be there, or is."""
        first = self._first.setdefault(vertex.key, vertex.id)
        if first == vertex.id:
            return None
        other = self._vertices[first]
        if other.status is Status.DONE and other.entry is None:
            self._first[vertex.key] = vertex.id
            return None
        return first

    def claim(self, vertex: Vertex, wake: Callable[[], None]) -> Found | bool:
        """True: this run does the work. False: another is at it, and `wake` is called when that ends.

        A result that appeared since the last look is found here.
        """
        if vertex.is_claimed or not self._is_shared(vertex):
            return True
        claimed = self._store.claim(vertex.key, wake)
        vertex.is_claimed = claimed is True
        return claimed

    def _is_shared(self, vertex: Vertex) -> bool:
        """Whether equal work is done once, by whichever run comes to it first."""
        return not vertex.node.output_node and vertex.id not in self._keys.volatile

    # -- for others ----------------------------------------------------------------------------------------------

    def keep(self, vertex: Vertex, entry: Entry) -> None:
        """Keep what the node made under its key, where it may stand for the work another time."""
        if not vertex.is_claimed and vertex.id in self._keys.volatile:
            return
        vertex.is_claimed = False
        if not self._keys.still_holds(vertex.id) or not self._stale.isdisjoint(vertex.held):
            self._stale.add(vertex.id)
            self._store.release(vertex.key)
            return
        self._store.keep(vertex.key, entry)
        if vertex.node.output_node:
            self._store.outputs.note(vertex.key, entry.ui, self._services)

    def copied(self, vertex: Vertex, twin: str) -> None:
        """The node took its twin's result, and is as stale as that."""
        if twin in self._stale:
            self._stale.add(vertex.id)

    def unclaim(self, vertices: Iterable[Vertex]) -> None:
        """Whoever waits for what these would have made does it alone."""
        for vertex in vertices:
            if vertex.is_claimed:
                vertex.is_claimed = False
                self._store.release(vertex.key)
