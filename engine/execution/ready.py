"""The nodes of one run that could be worked on now: in the order of the plan, by lane; and those that are parked."""

import heapq
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from operator import itemgetter
from queue import SimpleQueue

from sigmagraph.engine.execution.vertex import Status, Vertex
from sigmagraph.engine.graph.node import Lane


class ReadyNodes:
    """READY and PARKED nodes. `on_wake` is called, from any thread, when a parked node may go on."""

    def __init__(self, vertices: Mapping[str, Vertex], on_wake: Callable[[], None]) -> None:
        self._vertices, self._on_wake = vertices, on_wake
        self._heaps: dict[Lane, list[tuple[tuple[int, ...], int, str]]] = {"device": [], "host": []}
        self._parked: set[str] = set()
        self._woken: SimpleQueue[str] = SimpleQueue()
        self._turns = count()

    def __bool__(self) -> bool:
        return any(self._heaps.values())

    @property
    def has_parked(self) -> bool:
        """Whether a node waits for equal work of another run."""
        return bool(self._parked)

    def push(self, vertex: Vertex) -> None:
        """The node can be worked on."""
        vertex.status = Status.READY
        heapq.heappush(self._heaps[vertex.node.lane], (vertex.rank, next(self._turns), vertex.id))

    def peek(self, lane: Lane | None = None) -> Vertex | None:
        """The next node of a lane, or of both."""
        heap = self._first(lane)
        return self._vertices[heap[0][2]] if heap else None

    def pop(self, lane: Lane | None) -> Vertex | None:
        """The next node, which is not ready any more."""
        heap = self._first(lane)
        return self._vertices[heapq.heappop(heap)[2]] if heap else None

    def park(self, vertex: Vertex) -> None:
        """Somebody else is at work on what the node would do."""
        vertex.status = Status.PARKED
        self._parked.add(vertex.id)

    def waker(self, vertex: Vertex) -> Callable[[], None]:
        """What is to be called, from anywhere, when that work ended."""
        return partial(self._wake, vertex.id)

    def unpark(self) -> None:
        """Make parked nodes ready whose wait is over."""
        while not self._woken.empty():
            vertex = self._vertices[self._woken.get()]
            self._parked.discard(vertex.id)
            if vertex.status is Status.PARKED:
                self.push(vertex)

    def _wake(self, node_id: str) -> None:
        self._woken.put(node_id)
        self._on_wake()

    def _first(self, lane: Lane | None) -> list[tuple[tuple[int, ...], int, str]] | None:
        if lane is not None:
            return self._heaps[lane]
        return min(filter(None, self._heaps.values()), key=itemgetter(0), default=None)
