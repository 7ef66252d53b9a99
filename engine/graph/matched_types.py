"""Inputs and outputs of one `MatchType`: what an output's type is behind them, and links that cannot be of one type."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sigmagraph.engine.graph.node import Input, Node, Output
from sigmagraph.engine.graph.problems import Place, Problem
from sigmagraph.engine.graph.type_matching import ANY, fits, members
from sigmagraph.engine.graph.workflow import Link, WorkflowNode

__all__ = ["Matched"]


class Arrived(NamedTuple):
    """A link at an input that has to match others, and the output behind it."""

    declared: Input
    link: Link
    output: Output


class Matched:
    """One workflow's matched types. `nodes` are its classes by node id, laid out for what each is given."""

    def __init__(self, workflow: Mapping[str, WorkflowNode], nodes: Mapping[str, Node]) -> None:
        self._workflow, self._nodes = workflow, nodes
        self._known: dict[Link, Output] = {}

    def output(self, link: Link) -> Output:
        """The output a link comes from; where it repeats the type of inputs, the first definite one behind these."""
        if (own := self._nodes[link.source].outputs[link.slot]).match is None:
            return own  # of nearly every link
        waiting, entered = [link], set[Link]()
        while waiting:
            place = waiting[-1]
            behind = list(self._behind(place))
            further = [each for each in behind if each not in self._known and each not in entered]
            entered.add(place)
            if further and place not in self._known:
                waiting += reversed(further)
                continue
            waiting.pop()
            if place not in self._known:
                own = self._nodes[place.source].outputs[place.slot]
                found = [self._known[each] for each in behind if each in self._known]
                self._known[place] = next((each for each in found if not _is_open(each)), [*found, own][0])
        return self._known[link]

    def problems(self, node_id: str) -> Iterator[Problem]:
        """Every input of a node whose link is of another type than a link before it has to be of."""
        arrived: dict[str, list[Arrived]] = {}
        for declared in self._nodes[node_id].inputs:
            link = self._workflow[node_id].inputs.get(declared.name)
            if declared.match is None or type(link) is not Link or not self._has(link):
                continue
            here = Arrived(declared, link, self.output(self._counted(link)))
            if _is_open(here.output):
                continue
            others = arrived.setdefault(declared.match.template, [])
            odd = next((other for other in others if not _agree(other.output, here.output)), None)
            if odd is not None:
                yield _problem(Place(node_id, self._nodes[node_id].class_type, declared), here, odd)
            others.append(here)

    def _behind(self, place: Link) -> Iterator[Link]:
        """The outputs linked to the inputs whose type an output repeats."""
        node, written = self._nodes[place.source], self._workflow[place.source]
        match = node.outputs[place.slot].match
        if match is None:
            return
        for declared in node.inputs:
            link = written.inputs.get(declared.name)
            is_same = declared.match is not None and declared.match.template == match.template
            if is_same and type(link) is Link and self._has(link):
                yield self._counted(link)

    def _has(self, link: Link) -> bool:
        count = len(self._nodes[link.source].outputs) if link.source in self._nodes else 0
        return -count <= link.slot < count

    def _counted(self, link: Link) -> Link:
        """The link with its slot counted from the first."""
        return link if link.slot >= 0 else Link(link.source, link.slot + len(self._nodes[link.source].outputs))


def _is_open(output: Output) -> bool:
    """Whether it may be of any type."""
    return output.choices is None and output.type == ANY


def _agree(one: Output, other: Output) -> bool:
    """Whether something may be of both types."""
    if one.choices is not None or other.choices is not None:
        return not _kinds(one).isdisjoint(_kinds(other))
    return fits(one, Input("", other.type)) or fits(other, Input("", one.type))


def _kinds(output: Output) -> set[str]:
    """The types of an output; a list of choices is one of strings."""
    return {"COMBO", "STRING"} if output.choices is not None else members(output.type)


def _problem(place: Place, here: Arrived, other: Arrived) -> Problem:
    message = (
        f"takes what {other.declared.name} takes, which is {other.output.type} from node {other.link.source}; output "
        f"{here.link.slot} of node {here.link.source} is {here.output.type}"
    )
    return place.problem(
        "return_type_mismatch",
        message,
        received=str(here.output.type),
        allowed=str(other.output.type),
        received_type=str(here.output.type),
        linked_node=list(here.link),
    )
