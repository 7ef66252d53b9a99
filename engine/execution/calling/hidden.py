"""The values of hidden inputs: what a node may know about the run it is part of."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sigmagraph.engine.execution.calling.context import CallContext
from sigmagraph.engine.execution.vertex import Vertex
from sigmagraph.engine.graph.annotations import INTERNAL
from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.literals import wrap
from sigmagraph.engine.graph.lock import lock_of
from sigmagraph.engine.graph.node import Services
from sigmagraph.engine.graph.workflow import api_node


class Ancestry(Protocol):
    """The part of a run that knows where nodes came from."""

    @property
    def vertices(self) -> Mapping[str, Vertex]:
        """Every node so far, those made at run time too."""

    def shown_by(self, node_id: str) -> Mapping[str, Any]:
        """The user-interface record of a node's result, empty where it has none."""

    def root_id(self, node_id: str) -> str:
        """The node of the prompt that a node descends from."""


class DynamicPrompt:
    """The prompt including nodes made at run time, under the names custom nodes call."""

    def __init__(self, original: Callable[[], dict[str, Any]], family: Ancestry) -> None:
        self._original, self._family = original, family

    def get_original_prompt(self) -> dict[str, Any]:
        """The prompt as posted, normalised."""
        return self._original()

    def has_node(self, node_id: str) -> bool:
        """Whether there is such a node now."""
        return node_id in self._family.vertices or node_id in self._original()

    def get_node(self, node_id: str) -> dict[str, Any]:
        """A node in API form; raises KeyError if there is none."""
        vertex = self._family.vertices.get(node_id)
        if vertex is None or vertex.parent is None:
            return dict(self._original()[node_id])
        inputs = {name: wrap(value) for name, value in {**vertex.at.ignored, **vertex.at.inputs}.items()}
        return api_node(vertex.node.class_type, inputs, vertex.at.meta)

    def all_node_ids(self) -> set[str]:
        """Every node there is now."""
        return set(self._original()) | set(self._family.vertices)

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the prompt it descends from."""
        return self._family.root_id(node_id)

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node that made it, or None for nodes of the prompt."""
        vertex = self._family.vertices.get(node_id)
        return vertex.parent if vertex is not None else None

    def get_display_node_id(self, node_id: str) -> str:
        """The node the editor shows for it."""
        vertex = self._family.vertices.get(node_id)
        return vertex.display_id if vertex is not None else node_id


class HiddenValues:
    """Tag -> value, for one run. The prompt is made once, when a node first asks for it."""

    def __init__(
        self, graph: Graph, services: Services | None, extra_data: Mapping[str, Any], family: Ancestry
    ) -> None:
        self._graph, self._services, self._extra = graph, services, extra_data
        self._prompt: dict[str, Any] | None = None
        self._family = family
        self._dynamic = DynamicPrompt(self.prompt, family)

    def prompt(self) -> dict[str, Any]:
        """The normalised prompt."""
        if self._prompt is None:
            self._prompt = self._graph.prompt()
        return self._prompt

    def get_node(self, node_id: str) -> dict[str, Any]:
        """A node in API form, also one made at run time."""
        return self._dynamic.get_node(node_id)

    def of(self, vertex: Vertex, context: CallContext) -> dict[str, Any]:
        """The hidden arguments of one node, which is called in this context."""
        return {
            wanted.name: self._value(wanted.type, vertex, context)
            for wanted in vertex.node.hidden
            if wanted.type in TAGGED
        }

    def _value(self, tag: str, vertex: Vertex, context: CallContext) -> Any:
        match tag:
            case "PROGRESS":
                return context.went_on
            case "PROMPT":
                return self.prompt()
            case "DYNPROMPT":
                return self._dynamic
            case "UNIQUE_ID":
                return vertex.id
            case "SERVICES":
                return self._services
            case "LOCK":
                lock = lock_of(self._graph, self._family.root_id(vertex.id), self._services)
                return lock.with_step_caches({i: self._family.shown_by(i) for i in lock.nodes})
            case "KEPT":
                return self._services.kept(vertex.key) if self._services is not None else None
            case "EXTRA_PNGINFO":
                return self._extra.get("extra_pnginfo", self._embedded())
            case _:
                return self._extra.get(tag.lower())

    def _embedded(self) -> dict[str, Any] | None:
        editor = self._graph.workflow.editor
        return {"workflow": editor} if editor is not None else None


TAGGED = INTERNAL | {
    "PROMPT",
    "DYNPROMPT",
    "EXTRA_PNGINFO",
    "UNIQUE_ID",
    "AUTH_TOKEN_COMFY_ORG",
    "API_KEY_COMFY_ORG",
}
