"""`Workflow` + nodes -> `Graph`, or every problem at once. No recursion: a chain of 10,000 nodes is a valid graph.

A bad root does not spoil the others: the graph holds what can run, and lists why the rest cannot.
"""

import inspect
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sigmagraph.engine.errors import InvalidWorkflow, few_hints, nearest
from sigmagraph.engine.graph import literals
from sigmagraph.engine.graph.annotations import INTERNAL
from sigmagraph.engine.graph.comfy.class_hooks import run_validator
from sigmagraph.engine.graph.cycles import find_cycles
from sigmagraph.engine.graph.dynamic import Autogrow, resolved
from sigmagraph.engine.graph.graph import Graph, GraphNode
from sigmagraph.engine.graph.matched_types import Matched
from sigmagraph.engine.graph.node import MISSING, Choice, Input, Node, Services
from sigmagraph.engine.graph.pause import no_collection
from sigmagraph.engine.graph.problems import Place, Problem
from sigmagraph.engine.graph.renewal import renewed
from sigmagraph.engine.graph.type_matching import fits, members
from sigmagraph.engine.graph.workflow import NOTHING, Link, Workflow, WorkflowNode
from sigmagraph.engine.units import counted


def validate(
    workflow: Workflow,
    nodes: Mapping[str, Node],
    services: Services | None = None,
    targets: Collection[str] | None = None,
) -> Graph:
    """The graph of all roots that can run; raises `InvalidWorkflow` with all problems where none can.

    `targets` restricts the roots to those output nodes. An unknown class anywhere refuses the whole workflow.
    """
    with no_collection(), few_hints():
        return Validator(workflow, nodes, services).graph(targets)


class Validator:
    """One validation. Asks each class for its declaration, and each folder for its files, once."""

    def __init__(self, workflow: Workflow, nodes: Mapping[str, Node], services: Services | None) -> None:
        self.workflow, self.services = workflow, services
        self.problems: list[Problem] = []
        self.nodes: dict[str, Node] = {}
        self._registry = nodes
        self._lists: dict[int, list[Choice] | None] = {}
        self._layouts: dict[Hashable, Node] = {}
        self._matched = Matched(workflow.nodes, self.nodes)

    def graph(self, targets: Collection[str] | None) -> Graph:
        """Run every check, then keep what the valid roots need."""
        is_known = self._look_up_classes()
        roots = [i for i, node in self.nodes.items() if node.output_node and (targets is None or i in targets)]
        reached = reachable(self.workflow.nodes, roots)
        checked = {i: self._check_node(i) for i in self.workflow.nodes if i in reached and i in self.nodes}
        self._check_cycles(reached)
        self.problems += self.services.lacking(checked) if self.services is not None else ()
        if not roots:
            self.problems.append(self._no_outputs(targets))
        spoiled = self._spoiled(reached)
        good = [root for root in roots if root not in spoiled]
        if not is_known or not good:
            raise InvalidWorkflow(self.problems)
        kept = reachable(self.workflow.nodes, good) if len(good) < len(roots) else reached
        vertices = {i: vertex for i, vertex in checked.items() if i in kept}
        return Graph(vertices, good, self.workflow, self._registry, self.problems)

    def _look_up_classes(self) -> bool:
        declared: dict[str, Node] = {}
        for node_id, written in self.workflow.nodes.items():
            name = written.class_type
            if name not in declared and name in self._registry:
                declared[name] = renewed(self._registry[name])
            if name in declared:
                self.nodes[node_id] = self._laid_out(declared[name], written.inputs)
            else:
                message = f"there is no node class {name!r}" if name else "the node has no class_type"
                match = nearest(name, self._registry) if name else None
                self.problems.append(Problem("invalid_prompt", message, node_id, name, received=name, nearest=match))
        return len(self.nodes) == len(self.workflow.nodes)

    def _laid_out(self, node: Node, given: Mapping[str, Any]) -> Node:
        """As `resolved`, once for all nodes of a class that are given the same inputs and choices."""
        if not node.is_dynamic:
            return node
        shape = (
            node.class_type,
            frozenset((name, value if type(value) is str else type(value) is Link) for name, value in given.items()),
        )
        if shape not in self._layouts:
            self._layouts[shape] = resolved(node, given)
        return self._layouts[shape]

    def _no_outputs(self, targets: Collection[str] | None) -> Problem:
        asked = f" among the targets {sorted(targets)}" if targets is not None else ""
        return Problem("prompt_no_outputs", f"there is no output node{asked}; add one, such as SaveImage")

    def _check_cycles(self, reached: Collection[str]) -> None:
        edges = {i: [s for s in sources(self.workflow.nodes[i]) if s in reached] for i in reached}
        for cycle in find_cycles(edges):
            path = " -> ".join(f"{i} ({self.workflow.nodes[i].class_type})" for i in cycle)
            node_id = cycle[0]
            class_type = self.workflow.nodes[node_id].class_type
            message = f"the links form a cycle: {path}"
            self.problems.append(Problem("dependency_cycle", message, node_id, class_type, received=cycle))

    def _check_node(self, node_id: str) -> GraphNode:
        """Check every input; the vertex is complete only if no problem was found."""
        written, node = self.workflow.nodes[node_id], self.nodes[node_id]
        before = len(self.problems)
        given: dict[str, Any] = {}
        ignored: dict[str, Any] = {}
        received_types: dict[str, Any] = {}
        for name, value in written.inputs.items():
            declared = node.declared.get(name)
            if type(value) is Link:
                given[name] = self._check_link(node_id, name, value, declared, received_types)
            elif declared is None:
                ignored[name] = value
            elif declared.group != "hidden":
                given[name] = self._check_literal(Place(node_id, node.class_type, declared), value)
            elif declared.type not in TAGS:
                given[name] = literals.unwrap(value)
        self._fill_in(node_id, node, given)
        self.problems += self._matched.problems(node_id) if node.has_matched and not takes_types(node) else ()
        if node.validator is not None and len(self.problems) == before:
            self.problems += run_validator(node_id, node, given, received_types)
        return GraphNode(node_id, node, given, ignored or NOTHING, written.meta)

    def _fill_in(self, node_id: str, node: Node, given: dict[str, Any]) -> None:
        """Absent inputs: required ones are a problem, optional ones of our own nodes get their default."""
        for declared in node.inputs:
            if declared.name in given or declared.group == "hidden":
                continue
            if declared.group == "required":
                self.problems.append(Place(node_id, node.class_type, declared).missing())
            elif node.is_trusted and declared.default is not MISSING and declared.default is not None:
                given[declared.name] = declared.default

    def _check_link(
        self, node_id: str, name: str, link: Link, declared: Input | None, received_types: dict[str, Any]
    ) -> Link:
        node = self.nodes[node_id]
        if declared is None and (problem := self._beyond_list(node_id, name, link)) is not None:
            self.problems.append(problem)
            return link
        source = self.nodes.get(link.source)
        if source is None:
            if link.source not in self.workflow.nodes:
                self.problems.append(missing_source(self._place(node_id, name), link, self.workflow.nodes))
            return link
        slot = link.slot + len(source.outputs) if link.slot < 0 else link.slot
        if not 0 <= slot < len(source.outputs):
            self.problems.append(missing_slot(self._place(node_id, name), link, source))
            return link
        output = self._matched.output(Link(link.source, slot))
        received_types[name] = output.type if output.choices is None else list(output.choices)
        if declared is not None and not fits(output, declared) and not takes_types(node):
            self.problems.append(mismatch(self._place(node_id, name), link, source, str(output.type)))
        return link if slot == link.slot else Link(link.source, slot)

    def _beyond_list(self, node_id: str, name: str, link: Link) -> Problem | None:
        """A link to a place that a growing list does not have: nothing says what it takes, and it would get through."""
        own = self._registry[self.nodes[node_id].class_type].declared.get(name.partition(".")[0])
        if own is None or not isinstance(own.dynamic, Autogrow) or "." not in name:
            return None
        names = own.dynamic.names
        message = f"the list has {counted(len(names), 'place')}, {names[0]} to {names[-1]}, and not this one"
        close = nearest(name, [f"{own.name}.{each}" for each in names])
        return self._place(node_id, name).problem(
            "bad_linked_input", message, received=list(link), allowed=list(names), nearest=close
        )

    def _place(self, node_id: str, name: str) -> Place:
        node = self.nodes[node_id]
        return Place(node_id, node.class_type, node.declared.get(name) or Input(name, "*"))

    def _check_literal(self, place: Place, value: Any) -> Any:
        if type(value) is list:
            message = "a list is a link, [node id, output index]; wrap a list of values as {'__value__': [...]}"
            self.problems.append(place.problem("bad_linked_input", message, received=value))
            return value
        if self.nodes[place.node_id].is_trusted and not takes_literals(place.input.type):
            self.problems.append(no_link(place, value))
            return value
        converted, problem = literals.convert(place, literals.unwrap(value))
        if problem is None and not validates_itself(self.nodes[place.node_id], place.input.name):
            problem = literals.check(place, converted, self._allowed, self.services)
        if problem is not None:
            self.problems.append(problem)
        return converted

    def _allowed(self, declared: Input) -> list[Choice] | None:
        key = id(declared)
        if key not in self._lists:
            self._lists[key] = declared.allowed(self.services)
        return self._lists[key]

    def _spoiled(self, reached: Collection[str]) -> set[str]:
        """Every node with a problem, and every node that depends on one."""
        waiting = [problem.node_id for problem in self.problems if problem.node_id is not None]
        if not waiting:
            return set()
        consumers: dict[str, list[str]] = {}
        for node_id in reached:
            for source in sources(self.workflow.nodes[node_id]):
                consumers.setdefault(source, []).append(node_id)
        spoiled = set(waiting)
        while waiting:
            fresh = [i for i in consumers.get(waiting.pop(), ()) if i not in spoiled]
            spoiled.update(fresh)
            waiting += fresh
        return spoiled


TAGS = ("PROMPT", "DYNPROMPT", "EXTRA_PNGINFO", "UNIQUE_ID", "AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG", *INTERNAL)
PAGE_WIDGETS = ("COLOR", "BOUNDING_BOX", "BOUNDING_BOXES", "CURVE", "IMAGECOMPARE")  # their values travel as they are
WITH_WIDGETS = frozenset(("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "*", *PAGE_WIDGETS))


def sources(written: WorkflowNode) -> Iterable[str]:
    """The ids a node links to."""
    return (value.source for value in written.inputs.values() if type(value) is Link)


def reachable(nodes: Mapping[str, WorkflowNode], roots: Sequence[str]) -> set[str]:
    """The roots and everything behind them; links that lead nowhere are not followed."""
    seen = set(roots)
    waiting = list(roots)
    while waiting:
        for source in sources(nodes[waiting.pop()]):
            if source not in seen and source in nodes:
                seen.add(source)
                waiting.append(source)
    return seen


def takes_types(node: Node) -> bool:
    """Whether the class checks the types of its links itself."""
    return node.validator is not None and "input_types" in inspect.signature(node.validator).parameters


def validates_itself(node: Node, name: str) -> bool:
    """Whether the class checks this input itself, by name or because it takes any."""
    if node.validator is None:
        return False
    parameters = inspect.signature(node.validator).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


@cache
def takes_literals(wire: str) -> bool:
    """Whether a value may stand where the type is: widgets, `*`, and unions with one of these."""
    return not WITH_WIDGETS.isdisjoint(members(wire))


def no_link(place: Place, value: Any) -> Problem:
    """A literal where only a link makes sense."""
    message = f"{value!r} is not a link; {place.input.type} comes from another node, as [node id, output index]"
    return place.problem("bad_linked_input", message, received=value)


def missing_source(place: Place, link: Link, known: Iterable[str]) -> Problem:
    """A link to a node that is not in the workflow."""
    message = f"linked to node {link.source!r}, which is not in the workflow"
    return place.problem(
        "bad_linked_input", message, received=list(link), nearest=nearest(link.source, known), linked_node=list(link)
    )


def missing_slot(place: Place, link: Link, source: Node) -> Problem:
    """A link to an output the source does not have."""
    listed = ", ".join(f"{slot} {output.type}" for slot, output in enumerate(source.outputs)) or "none"
    message = f"node {link.source} ({source.class_type}) has no output {link.slot}; it has: {listed}"
    return place.problem(
        "bad_linked_input", message, received=list(link), allowed=len(source.outputs), linked_node=list(link)
    )


def mismatch(place: Place, link: Link, source: Node, received: str) -> Problem:
    """A link between types that do not fit."""
    message = (
        f"takes {place.input.type}, but output {link.slot} of node {link.source} ({source.class_type}) is {received}"
    )
    return place.problem(
        "return_type_mismatch",
        message,
        received=received,
        allowed=place.input.type,
        received_type=received,
        linked_node=list(link),
    )
