"""The cycles of a graph, against the standard library's sorter."""

from graphlib import CycleError, TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st

from sigmagraph.engine.graph.cycles import find_cycles

NAMES = "abcdef"
EDGES = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3))


@given(EDGES)
def test_cycles_are_found_where_the_standard_library_finds_one(edges: dict[str, list[str]]) -> None:
    try:
        TopologicalSorter(edges).prepare()
        has_cycle = False
    except CycleError:
        has_cycle = True
    found = find_cycles(edges)
    assert bool(found) == has_cycle
    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert all(before in edges[after] for before, after in zip(cycle, cycle[1:], strict=False))
