"""The search for loops against its definition, on random prompts with loops in a row and inside each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any

import pytest

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.node import Output, Socket, node
from sigmagraph.engine.graph.plan import plan, repeated
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.loop_graph import END, START, Loops
from tests.graph.small import checked

SOCKETS: dict[str, tuple[str, ...]] = {
    START: ("initial_iteration_value",),
    "Passes": ("source", "after"),
    END: ("output_value", "terminations.termination0"),
}
GIVEN: dict[str, dict[str, Any]] = {
    START: {"mode": "simple", "mode.num_iterations": 2, "cache_iterations": False},
    END: {"accumulate": False},
}


@node("Passes", category="t", output_node=True, outputs=[Output("*", "value")])
def passes(*, source: Annotated[Any, Socket("*")], after: Annotated[Any, Socket("*")] = None) -> Any:
    """Hands a value on, and is an output node, as nodes that save are."""
    return source


def made(kind: str, *sources: str) -> dict[str, Any]:
    """A node in API form that reads those nodes."""
    links = zip(SOCKETS[kind], ([source, 0] for source in sources), strict=False)
    return {"class_type": kind, "inputs": {**GIVEN.get(kind, {}), **dict(links)}}


def drawn(seed: int) -> dict[str, Any]:
    """Mostly one behind the other; links from elsewhere and stray ends leave some loops with no start or several."""
    draw = Random(seed)
    prompt: dict[str, Any] = {"one": {"class_type": "PrimitiveInt", "inputs": {"value": 1}}}
    depth = 0
    for at in range(draw.randint(6, 26)):
        before = list(prompt)
        sources = [before[-1] if draw.random() < 0.9 else draw.choice(before)]
        sources += [draw.choice(before)] if draw.random() < 0.3 else []
        kind = draw.choice([START, "Passes", END] if depth or draw.random() < 0.05 else [START, "Passes"])
        depth += {START: 1, END: -1}.get(kind, 0)
        prompt[f"n{at}"] = made(kind, *sources)
    return {**prompt, "last": made("Passes", next(reversed(prompt)))}


def in_a_row(count: int) -> dict[str, Any]:
    """Loops one behind the other, in each an output node whose value is handed on."""
    prompt: dict[str, Any] = {"e-1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}}}
    for at in range(count):
        prompt[f"s{at}"] = made(START, f"e{at - 1}")
        prompt[f"p{at}"] = made("Passes", f"s{at}", f"e{at - 1}")
        prompt[f"e{at}"] = made(END, f"p{at}")
    return {**prompt, "last": made("Passes", f"e{count - 1}")}


def sources(prompt: Mapping[str, Any], node_id: str) -> list[str]:
    return [value[0] for value in prompt[node_id]["inputs"].values() if isinstance(value, list)]


def all_above(prompt: Mapping[str, Any]) -> dict[str, set[str]]:
    """What each node depends on; the prompt is written sources first."""
    above: dict[str, set[str]] = {}
    for node_id in prompt:
        direct = sources(prompt, node_id)
        above[node_id] = set(direct).union(*(above[source] for source in direct))
    return above


def starts(prompt: Mapping[str, Any], above: Mapping[str, set[str]]) -> dict[str, str | None]:
    """Of each end the innermost start above it that no end in between has; None where it, or one above, has none."""
    found: dict[str, str | None] = {}
    for end_id in (i for i in prompt if prompt[i]["class_type"] == END):
        taken = {found[i] for i in above[end_id] if prompt[i]["class_type"] == END}
        free = {i for i in above[end_id] if prompt[i]["class_type"] == START} - taken
        inner = [i for i in free if not any(i in above[other] for other in free)]
        found[end_id] = inner[0] if len(inner) == 1 and None not in taken else None
    return found


def walked(prompt: Mapping[str, Any], end_id: str) -> list[str]:
    """All an end depends on, the last input first: the order in which bodies are laid out."""
    found, waiting = dict[str, None](), sources(prompt, end_id)
    while waiting:
        if (current := waiting.pop()) not in found:
            found[current] = None
            waiting += sources(prompt, current)
    return list(found)


def bodies(prompt: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each end that has a start depends on and what depends on that start."""
    above = all_above(prompt)
    pairs = {end: start for end, start in starts(prompt, above).items() if start is not None}
    return {end: [i for i in walked(prompt, end) if start in above[i]] for end, start in pairs.items()}


def test_loops_are_as_defined_in_whatever_order_they_are_asked_for() -> None:
    count = Counter[str]()
    for seed in range(300):
        prompt = drawn(seed)
        expected, body, loops = starts(prompt, all_above(prompt)), bodies(prompt), Loops(prompt.__getitem__)
        for end_id in Random(seed).sample(list(expected), len(expected)):
            if (start_id := expected[end_id]) is None:
                count["refused"] += 1
                with pytest.raises(BadValue, match="the StartLoop of EndLoop n"):
                    loops.find(end_id)
                continue
            loop = loops.find(end_id)
            assert (loop.start_id, list(loop.body)) == (start_id, body[end_id]), f"{end_id} of {seed}"
            count["within another" if any(end_id in other for other in body.values()) else "outermost"] += 1
    assert min(count[kind] for kind in ("refused", "within another", "outermost")) > 100, count


def alone(prompt: Mapping[str, Any], graph: Graph) -> Sequence[str]:
    """The roots without those in the body of a loop that other roots need, loop by loop."""
    above, roots = all_above(prompt), list(graph.roots)
    for end_id, body in bodies(prompt).items():
        others = [root for root in roots if root not in body]
        if any(end_id in above[root] for root in others):
            roots = others
    return roots


def test_outputs_that_run_in_turns_alone_are_as_defined() -> None:
    fewer = 0
    for seed in range(60):
        prompt = drawn(seed)
        graph = checked(prompt, {**NODES, "Passes": passes})
        roots = plan(graph).roots
        assert list(roots) == alone(prompt, graph), seed
        fewer += len(roots) < len(graph.roots)
    assert 15 < fewer < 60


def test_one_search_serves_all_loops_of_a_prompt() -> None:
    """Each End Loop made its own, cubic in loops in a row: 2.4 s for two hundred."""
    prompt, asked = in_a_row(30), Counter[str]()

    def get_node(node_id: str) -> Mapping[str, Any]:
        asked[node_id] += 1
        return prompt[node_id]

    graph = checked(prompt, {**NODES, "Passes": passes})
    assert {end: list(body) for end, body in repeated(graph.nodes.values(), get_node)} == bodies(prompt)
    assert asked.keys() == prompt.keys() - {"last"}
    assert set(asked.values()) == {1}
    assert plan(graph).roots == ["last"]
