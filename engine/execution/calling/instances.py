"""The objects node classes of ComfyUI's convention are called on: one per node and class, kept while the node stays."""

from collections.abc import Collection
from typing import Any

from sigmagraph.engine.graph.node import Node


class Instances:
    """(node id, class) -> instance. State on `self` survives from run to run, as such classes expect."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, node_id: str, node: Node) -> Any:
        """The instance of a node, made on first use; None for plain functions."""
        if node.instance is None:
            return None
        place = node_id, node.class_type
        if place not in self._known:
            self._known[place] = node.instance()
        return self._known[place]

    def keep_only(self, places: Collection[tuple[str, str]]) -> None:
        """Forget the instances of nodes that are not in the latest prompt."""
        for place in [place for place in list(self._known) if place not in places]:  # others may be added now
            self._known.pop(place, None)
