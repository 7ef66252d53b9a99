"""Cycles in a directed graph, each named node by node. Linear for a graph without any."""

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

MOST_REPORTED = 10


def find_cycles(edges: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Up to ten cycles of `node -> the nodes it depends on`, each as `[a, b, ..., a]` in the direction of data.

    After each one found an edge of it is cut, so that the next search finds another.
    """
    if _is_acyclic(edges):
        return []
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


def _is_acyclic(edges: Mapping[str, Collection[str]]) -> bool:
    """Whether nothing is left when nodes that wait for no other are taken away, again and again."""
    consumers: dict[str, list[str]] = {}
    missing = dict.fromkeys(edges, 0)
    for node, sources in edges.items():
        for source in sources:
            if source in missing:
                consumers.setdefault(source, []).append(node)
                missing[node] += 1
    free = [node for node, count in missing.items() if not count]
    for node in free:  # grows meanwhile
        for consumer in consumers.get(node, ()):
            missing[consumer] -= 1
            if not missing[consumer]:
                free.append(consumer)
    return len(free) == len(missing)
