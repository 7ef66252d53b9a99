"""`Graph`: a workflow whose classes are known and whose literals are converted. What planning and running see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.graph.literals import wrap
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.problems import Problem
from sigmagraph.engine.graph.workflow import NOTHING, Link, Workflow, api_node


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One vertex. `inputs` is what the node will be given, in the order written: links, and declared literals.

    `ignored` are undeclared literals: they are not passed, but two nodes that differ in them are different nodes.
    """

    id: str
    node: Node
    inputs: Mapping[str, Any]
    ignored: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    meta: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    @property
    def links(self) -> list[tuple[str, Link]]:
        """The linked inputs."""
        return [(name, value) for name, value in self.inputs.items() if type(value) is Link]


@dataclass(frozen=True, slots=True)
class Graph:
    """The nodes the valid roots need, by id. `problems` are those of the other roots; `roots` is in prompt order.

    `classes` are all node classes there are: run-time expansion makes new vertices from them.
    """

    nodes: Mapping[str, GraphNode]
    roots: Sequence[str]
    workflow: Workflow
    classes: Mapping[str, Node]
    problems: Sequence[Problem] = ()

    def prompt(self) -> dict[str, Any]:
        """The prompt as nodes see it and pictures keep it: API form with converted literals."""
        prompt = self.workflow.prompt()
        for node_id, vertex in self.nodes.items():
            written = prompt[node_id]["inputs"]
            converted = {name: wrap(value) for name, value in vertex.inputs.items() if name in written}
            prompt[node_id] = api_node(vertex.node.class_type, {**written, **converted}, vertex.meta)
        return prompt
