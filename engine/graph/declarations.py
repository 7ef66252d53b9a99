"""The nodes in `/object_info` form, as documents of the editor are converted with them."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from sigmagraph.engine.graph.annotations import Services
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.replacements import Replacement, replacements_of

__all__ = ["Declarations", "known_replacements"]


class Declarations(Mapping[str, Any]):
    """Each made once, when asked for: a document names few of all classes, and some of them very often."""

    def __init__(self, nodes: Mapping[str, Node], services: Services | None) -> None:
        self.nodes, self._services = nodes, services
        self._made: dict[str, Any] = {}

    @cached_property
    def replacements(self) -> Mapping[str, Replacement]:
        """What stands in for classes that are gone, by the old class."""
        return replacements_of(self.nodes)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self.nodes:
                raise KeyError(name)  # no search for the nearest name: drawings ask for thousands of unknown classes
            self._made[name] = self.nodes[name].object_info(self._services)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)


def known_replacements(declarations: Mapping[str, Any] | None) -> Mapping[str, Replacement]:
    """The replacements that come with declarations; a plain mapping of them has none."""
    return declarations.replacements if isinstance(declarations, Declarations) else {}
