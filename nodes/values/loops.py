"""Loops: everything between StartLoop and EndLoop runs once for each turn.

    StartLoop -> body -> EndLoop        EndLoop becomes        LoopRun, which knows how many turns there are,
                                        and that becomes       turn 0 -> body 0 -> turn 1 -> body 1 -> ... -> outputs

Each turn is a node LoopIteration with the body behind it, so the cache sees it by its content: of a loop that was
changed from 4 turns to 6, with `cache_iterations`, only the last two run (and the fourth, where it asks `is_last`).
"""

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import (
    Autogrow,
    DynamicCombo,
    Expansion,
    Extra,
    GetNode,
    Hidden,
    MatchType,
    Output,
    Progress,
    Range,
    Socket,
    UiResult,
    input_of,
    node,
)
from sigmagraph.nodes.support.loop_graph import Loop, Loops, find_loop

__all__ = ["NODES"]

LARGEST = 0xFFFFFFFFFFFFFFFF
MOST_NODES = 20_000  # of all turns of a loop together
MOST_CHARACTERS = 4_000_000  # of their ids: those of a loop inside another are twice as long
Anything = Annotated[Any, Socket("*")]
Unread = Annotated[Any, Socket("*"), Extra({"lazy": True, "rawLink": True})]
Whole = Annotated[int, Range(-LARGEST, LARGEST)]
TIMES = input_of("num_iterations", Annotated[int, Range(0, LARGEST)], 4)
SPAN = [
    input_of("start_iteration_index", Whole, 0),
    input_of("max_iteration", Whole, 4),
    input_of("step", Annotated[int, Range(1, LARGEST)], 1),
]
MODES = DynamicCombo({"simple": [TIMES], "For": SPAN, "List": [input_of("list", Annotated[Any, MatchType("item")])]})
TURN = [
    Output("INT", "iteration_index"),
    Output("BOOLEAN", "is_first"),
    Output("BOOLEAN", "is_last"),
    Output("*", "list_item", match=MatchType("item")),
    Output("*", "current_iteration_value", match=MatchType("value"), is_list=True),
]
INDEX, LAST = 0, 2  # outputs of a turn


@node("StartLoop", category="logic", display_name="Start Loop", input_is_list=True, outputs=TURN)
def start_loop(
    *,
    mode: Annotated[dict[str, Any], MODES],
    cache_iterations: bool = False,
    parent_iteration: Annotated[Sequence[int] | None, Socket("INT"), Extra({"forceInput": True})] = None,
    initial_iteration_value: Annotated[Sequence[Any] | None, MatchType("value")] = None,
) -> tuple[int, bool, bool, Any, list[Any]]:
    """Begins a loop. What depends on it and leads to no End Loop sees the first turn."""
    chosen = {name: value[0] if name != "list" else list(value) for name, value in mode.items()}
    indices = _indices(chosen)
    items = chosen.get("list") or [None]
    return indices[0] if indices else 0, True, len(indices) <= 1, items[0], list(initial_iteration_value or [None])


@node("EndLoop", category="logic", display_name="End Loop", outputs=[Output("*", "outputs", is_list=True)])
def end_loop(
    *,
    output_value: Unread = None,
    next_iteration_value: Unread = None,
    accumulate: bool = False,
    terminations: Annotated[
        dict[str, Any] | None, Autogrow.numbered(input_of("termination", Unread, None), "termination", least=0, most=50)
    ] = None,
    prompt: Annotated[Any, Hidden("DYNPROMPT")],
    unique_id: Annotated[str, Hidden("UNIQUE_ID")],
) -> Expansion:
    """Ends a loop: gives what arrived in its last turn, or in each of them."""
    loop = find_loop(unique_id, prompt.get_node)
    given = {"mode": "simple", "cache_iterations": False, **loop.start["inputs"]}
    asked = {name.removeprefix("mode."): value for name, value in given.items() if name.startswith("mode")}
    inputs = {**asked, "cache_iterations": given["cache_iterations"], "accumulate": accumulate, "end_id": unique_id}
    return Expansion({f"{unique_id}.run": {"class_type": "LoopRun", "inputs": inputs}}, ([f"{unique_id}.run", 0],))


@node(
    "LoopRun", category="logic", experimental=True, input_is_list=True, outputs=[Output("*", "outputs", is_list=True)]
)
def loop_run(
    *,
    end_id: Annotated[Sequence[str], Socket("STRING")],
    mode: Annotated[Sequence[str], Socket("STRING")],
    cache_iterations: Annotated[Sequence[bool], Socket("BOOLEAN")],
    accumulate: Annotated[Sequence[bool], Socket("BOOLEAN")],
    num_iterations: Annotated[Sequence[int] | None, Socket("INT")] = None,
    start_iteration_index: Annotated[Sequence[int] | None, Socket("INT")] = None,
    max_iteration: Annotated[Sequence[int] | None, Socket("INT")] = None,
    step: Annotated[Sequence[int] | None, Socket("INT")] = None,
    list: Annotated[Sequence[Any] | None, Socket("*")] = None,
    prompt: Annotated[Any, Hidden("DYNPROMPT")],
    unique_id: Annotated[Any, Hidden("UNIQUE_ID")],
) -> Any:
    """Made by End Loop when it runs: lays the turns out, one behind the other."""
    numbers = {
        "num_iterations": num_iterations,
        "start_iteration_index": start_iteration_index,
        "max_iteration": max_iteration,
        "step": step,
    }
    chosen = {name: value[0] for name, value in numbers.items() if value}
    indices = _indices({**chosen, "mode": mode[0], "list": list or ()})
    loop = find_loop(end_id[0], prompt[0].get_node)
    if len(indices) * (len(loop.body) + 4) > MOST_NODES:
        raise BadValue("the loop's turns", len(indices), f"at most {MOST_NODES // (len(loop.body) + 4)} of this body")
    own = f"{unique_id[0]}."
    characters = len(indices) * sum(len(own) + len(node_id) for node_id in loop.body)
    if characters > MOST_CHARACTERS:
        allowed = f"at most {MOST_CHARACTERS}; fewer loops inside each other"
        raise BadValue("the characters of all ids in the loop's turns", characters, allowed)
    turns = _Turns(loop, own, indices, is_list=mode[0] == "List", is_kept=bool(cache_iterations[0]))
    return turns.expansion(accumulates=bool(accumulate[0]))


class _Turns:
    """A loop's turns as nodes in API form."""

    def __init__(self, loop: Loop, own: str, indices: Sequence[int], *, is_list: bool, is_kept: bool) -> None:
        self.loop, self.own, self.indices, self.is_list, self.is_kept = loop, own, indices, is_list, is_kept
        self.graph: dict[str, Any] = {}

    def expansion(self, *, accumulates: bool) -> Any:
        """All turns, and the list of what they give: of each, or of the last."""
        carried = self.loop.start["inputs"].get("initial_iteration_value")
        following = self.loop.ending("next_iteration_value")
        prefixes = [f"{self.own}{at}." for at in range(len(self.indices))]
        for at, prefix in enumerate(prefixes):
            self.graph |= self.loop.copy(prefix)
            self._add_turn(at, prefix, carried)
            carried = self.loop.moved(following, prefix) if following is not None else carried
        given = self.loop.ending("output_value")
        if given is None or not prefixes:
            return Expansion(self.graph, ([],)) if self.graph else []
        outputs = [self.loop.moved(given, prefix) for prefix in prefixes]
        return Expansion(self.graph, (self._joined(outputs) if accumulates else outputs[-1],))

    def _add_turn(self, at: int, prefix: str, carried: Any) -> None:
        """The node that stands for the start in this turn, and what must run in it.

        Which turn is the last is told where the body asks: the last of few turns is then found again among more.
        """
        inputs: dict[str, Any] = {
            "iteration_index": self.indices[at],
            "is_first": at == 0,
            "is_last": self.loop.reads(LAST) and at == len(self.indices) - 1,
            "reuse_cache": self.is_kept,
        }
        if self.is_list:
            items = self.loop.start["inputs"]["mode.list"]
            self.graph[f"{prefix}item"] = {"class_type": "GetItemFromList", "inputs": {"list": items, "index": at}}
            inputs["list_item"] = [f"{prefix}item", 0]
        if carried is not None:
            inputs["current_iteration_value"] = carried
        self.graph[f"{prefix}turn"] = {"class_type": "LoopIteration", "inputs": inputs}
        told = {
            "start_id": self.loop.start_id,
            "total": len(self.indices),
            "position": at,
            "after": [f"{prefix}turn", INDEX],
        }
        self.graph[f"{prefix}told"] = {"class_type": "LoopProgress", "inputs": told}
        links = [[f"{prefix}told", 0], *(self.loop.moved(link, prefix) for link in self.loop.terminations())]
        ended = {f"outputs.output{number}": link for number, link in enumerate(links)}
        self.graph[f"{prefix}ended"] = {"class_type": "LoopResult", "inputs": {"close_id": self.loop.end_id, **ended}}

    def _joined(self, links: Sequence[Any]) -> Any:
        """One link to the values of all links, joined in pieces of fifty."""
        level = 0
        while len(links) > 1:
            pieces = [links[at : at + 50] for at in range(0, len(links), 50)]
            for at, piece in enumerate(pieces):
                inputs = {f"inputs.input{number}": link for number, link in enumerate(piece)}
                self.graph[f"{self.own}list{level}.{at}"] = {"class_type": "CreateList", "inputs": inputs}
            links = [[f"{self.own}list{level}.{at}", 0] for at in range(len(pieces))]
            level += 1
        return links[0]


def _indices(chosen: Mapping[str, Any]) -> Sequence[int]:
    """The index of every turn."""
    match chosen["mode"]:
        case "simple":
            return range(max(0, int(chosen.get("num_iterations", 4))))
        case "For":
            step = int(chosen.get("step", 1))
            if step < 1:
                raise BadValue("step", step, "at least 1")
            return range(int(chosen.get("start_iteration_index", 0)), int(chosen.get("max_iteration", 4)), step)
        case "List":
            return range(len(chosen["list"]))
        case other:
            raise BadValue("mode", other, "one of simple, For, List")


@node("LoopIteration", category="logic", experimental=True, input_is_list=True, outputs=TURN)
def loop_iteration(
    *,
    iteration_index: Annotated[Sequence[int], Socket("INT")],
    is_first: Annotated[Sequence[bool], Socket("BOOLEAN")],
    is_last: Annotated[Sequence[bool], Socket("BOOLEAN")],
    list_item: Annotated[Sequence[Any] | None, MatchType("item")] = None,
    current_iteration_value: Annotated[Sequence[Any] | None, MatchType("value")] = None,
    reuse_cache: Annotated[Sequence[bool], Socket("BOOLEAN")],
) -> tuple[int, bool, bool, Any, list[Any]]:
    """Made by End Loop when it runs: one turn, in the place of Start Loop."""
    item = list_item[0] if list_item else None
    return iteration_index[0], is_first[0], is_last[0], item, list(current_iteration_value or [None])


def _is_kept(*, reuse_cache: bool) -> float:
    """Equal for turns that may be found again; what equals nothing for those that run each time."""
    return 0.0 if reuse_cache else math.nan


@node("LoopProgress", category="logic", experimental=True, outputs=[Output("INT", "position")])
def loop_progress(
    *,
    start_id: Annotated[str, Socket("STRING")],
    position: Annotated[int, Socket("INT")],
    total: Annotated[int, Socket("INT")],
    after: Anything = None,
) -> Generator[Progress, None, int]:
    """Made by End Loop when it runs: says that a turn begins, counted from 0."""
    yield Progress(position + 1, total)
    return position


@node("LoopResult", category="logic", experimental=True, output_node=True, outputs=())
def loop_result(
    *,
    close_id: Annotated[str, Socket("STRING")],
    outputs: Annotated[
        dict[str, Any] | None, Autogrow.numbered(input_of("output", Anything, None), "output", least=0, most=51)
    ] = None,
) -> UiResult:
    """Made by End Loop when it runs: an end for what must run in a turn and is not given back."""
    return UiResult()


def _bodies(get_node: GetNode) -> Callable[[str], Collection[str]]:
    """What gives the nodes that an End Loop runs once for each turn; all of a prompt share one search."""
    loops = Loops(get_node)
    return lambda end_id: loops.find(end_id).body.keys()


NODES = (
    start_loop,
    replace(end_loop, lazy_status=lambda **_: (), repeats=_bodies),
    loop_run,
    replace(loop_iteration, fingerprint=_is_kept),
    loop_progress,
    loop_result,
)
