"""Cycles in a directed graph, each named node by node. Linear for a graph without any."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

MOST_REPORTED = 10


def find_cycles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Up to ten cycles of `node -> the nodes it depends on`, each as `[a, b, ..., a]` in the direction of data.

    After each one found an edge of it is cut, so that the next search finds another.
    """
    remaining = {node: list(sources) for node, sources in edges.items()}
    found: list[list[str]] = []
    while len(found) < MOST_REPORTED:
        try:
            TopologicalSorter(remaining).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1]
            found.append(cycle)
            remaining[cycle[1]] = [source for source in remaining[cycle[1]] if source != cycle[0]]
        else:
            break
    return found
