"""`Lock`: what made an output, so that a later run can say what has changed. Nothing in it depends on time or place.

A lock is computed from the validated graph alone; what only other layers know (sampler revisions, versions, device)
is added by them. Equal runs have equal locks, byte for byte: how each result was come by (executed, from memory, from
disk) is therefore no part of it; a run's report says that.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sigmagraph.engine.errors import BadDocument, FileProblem, UnknownName
from sigmagraph.engine.graph.annotations import FileIn, Services
from sigmagraph.engine.graph.graph import Graph, GraphNode
from sigmagraph.engine.graph.literals import wrap
from sigmagraph.engine.graph.plan import depth_first
from sigmagraph.engine.graph.workflow import Link

__all__ = [
    "CHUNK",
    "STEP_CACHE",
    "Difference",
    "Lock",
    "differences",
    "input_differences",
    "lock_of",
    "named_samplers",
    "read_lock",
    "with_precision",
]

STEP_CACHE = "step_cache"  # under which key a node's record says what its step cache left out
CHUNK = "lock"  # the text chunk's keyword, beside `prompt` and `workflow`
FORM = 1
UNREADABLE = "unreadable"
SAMPLER_INPUTS = ("sampler_name", "scheduler")


@dataclass(frozen=True, slots=True)
class Lock:
    """What made the output of node `output`: every node behind it, every file they read, and where they ran.

    `nodes`: id -> `class schema.revision`. `files`: `folder/name` -> content hash. `samplers`: name -> revision,
    for one from outside followed by a digest of its file.
    `environment`: versions, device, precision. `image` is the place in the batch. `step_caches`: what nodes that
    sampled with a step cache said of it: how much was left out, and how far off the result is.
    """

    output: str
    graph: str
    nodes: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    samplers: Mapping[str, int | str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    image: int = 0
    step_caches: Mapping[str, Any] = field(default_factory=dict)

    def completed(self, samplers: Mapping[str, int | str], environment: Mapping[str, str]) -> "Lock":
        """With what the graph cannot know."""
        return replace(self, samplers=dict(samplers), environment=dict(environment))

    def with_step_caches(self, shown: Mapping[str, Mapping[str, Any]]) -> "Lock":
        """With what the nodes behind the output said of their step caches; `shown` are records by node."""
        told = {i: shown[i][STEP_CACHE] for i in self.nodes if STEP_CACHE in shown.get(i, {})}
        return replace(self, step_caches=told) if told else self

    def of_image(self, place: int) -> "Lock":
        """The lock of one image of a batch."""
        return replace(self, image=place)

    def written(self) -> dict[str, Any]:
        """As JSON values, keys in a fixed order."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        parts = {name: dict(sorted(v.items())) if isinstance(v, Mapping) else v for name, v in values.items()}
        if not self.step_caches:
            del parts["step_caches"]
        return {"form": FORM, **parts}


@dataclass(frozen=True, slots=True)
class Difference:
    """One named thing that is not what it was. None stands for "was not there"."""

    field: str
    recorded: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field}: was {_shown(self.recorded)}, now {_shown(self.now)}"


def lock_of(graph: Graph, output: str, services: Services | None = None, recorded: Lock | None = None) -> Lock:
    """The lock of what node `output` gives: it and everything behind it. Digests are of the kind `recorded` has."""
    earlier = recorded.files if recorded is not None else {}
    vertices = [graph.nodes[node_id] for node_id in depth_first(graph.nodes, [output])]
    return Lock(
        output=output,
        graph=_digest(vertices),
        nodes={v.id: f"{v.node.class_type} {v.node.schema}.{v.node.revision}" for v in vertices},
        files=dict(file for vertex in vertices for file in _files(vertex, services, earlier)),
    )


def with_precision(lock: Lock, environment: Mapping[str, str], precisions: Mapping[str, str]) -> dict[str, str]:
    """The environment with the precision that the locked model files compute in, where it is not the usual one.

    `precisions`: by file name, as far as they are known. The usual one stands in the environment already.
    """
    used = {precisions[name] for file in lock.files if (name := file.partition("/")[2]) in precisions}
    usual, comma, chosen = environment.get("precision", "").partition("; ")
    return (
        {**environment, "precision": (" and ".join(sorted(used)) or usual) + comma + chosen}
        if used
        else {**environment}
    )


def named_samplers(prompt: Mapping[str, Any], lock: Lock) -> Iterator[tuple[str, str]]:
    """Input and name of every sampler and schedule the locked nodes are given; `prompt` is in API form."""
    for node_id in lock.nodes:
        inputs = prompt.get(node_id, {}).get("inputs", {})
        for name in SAMPLER_INPUTS:
            if isinstance(inputs.get(name), str):
                yield name, inputs[name]


def read_lock(text: str) -> Lock:
    """The lock a picture carries; raises `BadDocument` for anything else."""
    try:
        written = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"the lock is not JSON: {error}") from error
    if not isinstance(written, dict) or written.get("form") != FORM:
        raise BadDocument(f"the lock is of a form this version does not read; expected form {FORM}")
    kinds = {"output": str, "graph": str, "image": int}
    values = {part.name: written.get(part.name) for part in fields(Lock)}
    values["step_caches"] = written.get("step_caches", {})  # of runs with a step cache alone
    for name, value in values.items():
        if not isinstance(value, kinds.get(name, dict)):
            raise BadDocument(f"the lock's {name!r} is {value!r}; expected {kinds.get(name, dict).__name__}")
    return Lock(**values)  # type: ignore[arg-type]  # checked just now


def differences(recorded: Lock, now: Lock) -> list[Difference]:
    """What differs between two locks, named: nodes, files, samplers, environment."""
    found: list[Difference] = []
    for name in ("nodes", "files", "samplers", "environment"):
        found += _mapping_differences(name, getattr(recorded, name), getattr(now, name))
    if recorded.graph != now.graph and not any(difference.field.startswith("nodes.") for difference in found):
        found.append(Difference("graph", recorded.graph, now.graph))
    return found


def input_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Inputs that differ between two prompts in API form; titles are no inputs."""
    return [
        difference
        for node_id in sorted(recorded.keys() | now.keys())
        for difference in _node_differences(node_id, recorded.get(node_id), now.get(node_id))
    ]


def _node_differences(node_id: str, recorded: Any, now: Any) -> list[Difference]:
    if recorded is None or now is None:
        return [Difference(f"graph.{node_id}", _class(recorded), _class(now))]
    place = f"graph.{node_id} ({_class(now)})"
    changed = _mapping_differences(place, recorded.get("inputs") or {}, now.get("inputs") or {})
    is_other_class = _class(recorded) != _class(now)
    return [Difference(f"{place}.class", _class(recorded), _class(now))] * is_other_class + changed


def _mapping_differences(name: str, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    keys = sorted(recorded.keys() | now.keys())
    return [Difference(f"{name}.{key}", recorded.get(key), now.get(key)) for key in keys if _differ(key, recorded, now)]


def _differ(key: str, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return key not in recorded or key not in now or recorded[key] != now[key]


def _digest(vertices: list[GraphNode]) -> str:
    """Over classes and inputs as validated, sources first; titles and the order of keys do not count."""
    shape = {
        v.id: [v.node.class_type, {name: _plain(value) for name, value in {**v.ignored, **v.inputs}.items()}]
        for v in vertices
    }
    text = json.dumps(shape, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Link) else wrap(value)


def _files(vertex: GraphNode, services: Services | None, earlier: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """`folder/name` and content hash of the files a node reads."""
    for name, declared in vertex.node.declared.items():
        value = vertex.inputs.get(name)
        if declared.file is not None and isinstance(value, str) and services is not None:
            for folder, file in _places(declared.file, services, value):
                place = f"{folder}/{file}"
                yield place, _hash(services, folder, file, earlier.get(place))


def _places(file: FileIn, services: Services, value: str) -> list[tuple[str, str]]:
    try:
        return file.places(services, value)
    except UnknownName:  # gone since: the lock names what was asked for
        return [(file.folder, value)]


def _hash(services: Services, folder: str, name: str, like: str | None) -> str:
    try:
        return services.content_hash(services.path(folder, name), like)
    except (FileProblem, UnknownName):  # gone since the graph was validated: the lock says so
        return UNREADABLE


def _class(node: Any) -> str | None:
    return str(node.get("class_type", "")) if isinstance(node, Mapping) else None


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)
