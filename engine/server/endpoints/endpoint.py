"""`Endpoint`: a manifest bound to its graph. Knows nodes by title and declaration; knows no job and no HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import EngineError, suggestion
from sigmagraph.engine.graph.node import MISSING, Input, Node, Services
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.graph.workflow import Link, Workflow
from sigmagraph.engine.server.endpoints.manifest import BadEndpoint, Manifest, Scalar, read_manifest

__all__ = ["FOLDER", "Endpoint", "NodeInput", "declaration_problems", "load_endpoint", "load_endpoints"]

PREFIX = "filename_prefix"
FOLDER = "published"
"""Where pictures of requests lie inside the output folder."""
WIRES: Mapping[str, tuple[str, ...]] = {
    "string": ("STRING", "COMBO", "*"),
    "integer": ("INT", "FLOAT", "COMBO", "*"),
    "number": ("FLOAT", "COMBO", "*"),
    "boolean": ("BOOLEAN", "*"),
}


@dataclass(frozen=True, slots=True)
class NodeInput:
    """One input of one node of the graph."""

    node_id: str
    input: str


@dataclass(frozen=True)
class Endpoint:
    """A published workflow, checked against its own graph. `pixel_scale` shrinks pictures (the demo)."""

    path: Path
    manifest: Manifest
    workflow: Workflow
    reply_node: str
    sockets: Mapping[str, Sequence[NodeInput]]
    choices: Mapping[str, NodeInput] = field(default_factory=dict)
    pixel_scale: float = 1.0

    @property
    def slug(self) -> str:
        """Its name in paths."""
        return self.manifest.slug

    def bind(self, values: Mapping[str, Scalar], request_id: str) -> Workflow:
        """The graph with the values in their places; files of one request share a name nobody else has."""
        inputs: dict[str, dict[str, Any]] = {}
        for name, sockets in self.sockets.items():
            for socket in sockets:
                inputs.setdefault(socket.node_id, {})[socket.input] = values[name]
        if PREFIX in self.workflow.nodes[self.reply_node].inputs:
            inputs.setdefault(self.reply_node, {})[PREFIX] = f"{FOLDER}/{request_id}"
        return self.workflow.with_inputs(inputs)

    def parameter_at(self, node_id: str | None, input_name: str | None) -> str | None:
        """The parameter that is bound to a node's input."""
        place = NodeInput(node_id or "", input_name or "")
        return next((name for name, sockets in self.sockets.items() if place in sockets), None)

    def allowed(self, nodes: Mapping[str, Node], services: Services | None) -> dict[str, list[Scalar]]:
        """Per parameter the values it may have, for those that have a list."""
        found: dict[str, list[Scalar]] = {}
        for name, parameter in self.manifest.parameters.items():
            listed = list(parameter.enum or ())
            declared = self._declared(self.choices[name], nodes) if name in self.choices else None
            listed += [value for value in (declared.allowed(services) or ()) if value not in listed] if declared else []
            listed = [value for value in listed if value not in parameter.without]
            if listed:
                found[name] = listed
        return found

    def _declared(self, socket: NodeInput, nodes: Mapping[str, Node]) -> Input | None:
        node = nodes.get(self.workflow.nodes[socket.node_id].class_type)
        return node.declared.get(socket.input) if node is not None else None


def load_endpoints(folder: Path, *, is_demo: bool = False) -> dict[str, Endpoint]:
    """Every manifest of a folder by slug; raises `BadEndpoint` for the first file that is wrong."""
    found: dict[str, Endpoint] = {}
    for path in sorted(folder.glob("*.toml")):
        endpoint = load_endpoint(path, is_demo=is_demo)
        if endpoint.slug in found:
            raise BadEndpoint(path, [f"slug: {endpoint.slug!r} belongs to {found[endpoint.slug].path.name} already"])
        found[endpoint.slug] = endpoint
    return found


def load_endpoint(path: Path, *, is_demo: bool = False) -> Endpoint:
    """One manifest with its graph; every binding is checked against the graph."""
    manifest = read_manifest(path)
    demo = manifest.demo if is_demo else None
    workflow = _graph(path, demo.graph if demo else manifest.graph, "demo.graph" if demo else "graph")
    problems: list[str] = []
    reply_node = _node(workflow, manifest.reply.images, "reply.images", problems)
    sockets: dict[str, list[NodeInput]] = {}
    choices: dict[str, NodeInput] = {}
    for name, parameter in manifest.parameters.items():
        place = f"parameters.{name}"
        found = [_socket(workflow, bind, f"{place}.binds", problems) for bind in parameter.binds]
        sockets[name] = [socket for socket in found if socket is not None]
        if parameter.choices_of is not None:
            socket = _socket(workflow, parameter.choices_of, f"{place}.choices_of", problems)
            choices |= {name: socket} if socket is not None else {}
    if problems or reply_node is None:
        raise BadEndpoint(path, problems)
    return Endpoint(path, manifest, workflow, reply_node, sockets, choices, demo.pixel_scale if demo else 1.0)


def declaration_problems(endpoint: Endpoint, nodes: Mapping[str, Node]) -> list[str]:
    """What the node library says against the bindings: unknown classes and inputs, types that do not fit."""
    problems = [
        f"graph: node {node_id}: there is no node class {node.class_type!r}{suggestion(node.class_type, nodes)}"
        for node_id, node in endpoint.workflow.nodes.items()
        if node.class_type not in nodes
    ]
    shown = endpoint.workflow.nodes[endpoint.reply_node].class_type
    if shown in nodes and not nodes[shown].output_node:
        problems.append(f"reply.images: node {endpoint.reply_node} ({shown}) is not an output node, such as SaveImage")
    for name, socket in endpoint.choices.items():
        problems += _strangers(endpoint, name, nodes.get(endpoint.workflow.nodes[socket.node_id].class_type), socket)
    for name, sockets in endpoint.sockets.items():
        for socket in sockets:
            class_type = endpoint.workflow.nodes[socket.node_id].class_type
            if class_type in nodes:
                problems += _misfit(endpoint, name, socket, nodes[class_type])
    return problems


def _strangers(endpoint: Endpoint, name: str, node: Node | None, socket: NodeInput) -> list[str]:
    """Values written in the manifest that a node's list does not have; lists of files are another machine's matter."""
    declared = node.declared.get(socket.input) if node is not None else None
    listed = declared.allowed(None) if declared is not None and declared.file is None else None
    parameter = endpoint.manifest.parameters[name]
    if not listed:
        return []
    known = [*listed, *(parameter.enum or ())]
    written = [("default", parameter.default), ("example", parameter.example)]
    written += [(f"aliases.{alias}", value) for alias, value in parameter.aliases.items()]
    written += [("without", value) for value in parameter.without]
    return [
        f"parameters.{name}.{part}: {value!r} is not in the list of {parameter.choices_of}{_near(value, known)}"
        for part, value in written
        if value is not None and value not in known
    ]


def _near(value: Scalar, known: Sequence[Any]) -> str:
    return suggestion(value, [text for text in known if isinstance(text, str)]) if isinstance(value, str) else ""


def _misfit(endpoint: Endpoint, name: str, socket: NodeInput, node: Node) -> list[str]:
    parameter = endpoint.manifest.parameters[name]
    place = f"parameters.{name}.binds: node {socket.node_id} ({node.class_type})"
    declared = node.declared.get(socket.input)
    if declared is None or declared.group == "hidden":
        return [f"{place}: has no input {socket.input!r}{suggestion(socket.input, node.declared)}"]
    if declared.type not in WIRES[parameter.type]:
        return [f"{place}.{socket.input}: takes {declared.type}, the parameter is a {parameter.type}"]
    low, high = declared.options.get("min"), declared.options.get("max")
    is_low = low is not None and parameter.minimum is not None and parameter.minimum < low and parameter.random is None
    is_high = high is not None and parameter.maximum is not None and parameter.maximum > high
    return [f"{place}.{socket.input}: allows {low} to {high}, the parameter more"] if is_low or is_high else []


def _graph(path: Path, name: str, field_name: str) -> Workflow:
    """The graph beside the manifest, in API form."""
    try:
        workflow = load_workflow(path.parent / name)
    except EngineError as error:
        raise BadEndpoint(path, [f"{field_name}: {error}"]) from error
    if not workflow.nodes:
        raise BadEndpoint(path, [f"{field_name}: {name}: holds no node; a published graph is in API form"])
    return workflow


def _node(workflow: Workflow, title: str, place: str, problems: list[str]) -> str | None:
    """The id of the only node with that title, or of that id."""
    titled = [node_id for node_id, node in workflow.nodes.items() if node.title == title]
    if len(titled) == 1:
        return titled[0]
    if title in workflow.nodes:
        return title
    known = [node.title for node in workflow.nodes.values()]
    if titled:
        problems.append(f"{place}: {len(titled)} nodes are called {title!r}; use an id: {', '.join(titled)}")
    else:
        problems.append(f"{place}: no node is called {title!r}{suggestion(title, known)}")
    return None


def _socket(workflow: Workflow, bind: str, place: str, problems: list[str]) -> NodeInput | None:
    title, dot, name = bind.rpartition(".")
    if not dot or not title or not name:
        problems.append(f"{place}: {bind!r}; expected 'TITLE.INPUT'")
        return None
    node_id = _node(workflow, title, place, problems)
    if node_id is None:
        return None
    written = workflow.nodes[node_id]
    if isinstance(written.inputs.get(name, MISSING), Link):
        problems.append(f"{place}: node {node_id} ({written.class_type}).{name} is a link; bind what it leads to")
        return None
    if name not in written.inputs:
        near = suggestion(name, written.inputs)
        problems.append(f"{place}: node {node_id} ({written.class_type}) has no input {name!r} in the graph{near}")
        return None
    return NodeInput(node_id, name)
