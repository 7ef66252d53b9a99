"""Content keys: equal work has equal keys, whatever the nodes are called. One hash per node, so linear in the plan."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.comfy.class_hooks import call_now, hook_arguments
from sigmagraph.engine.graph.graph import GraphNode
from sigmagraph.engine.graph.node import Node, Services
from sigmagraph.engine.graph.workflow import Link

SCALARS = (str, int, float, bool, type(None))
NOTHING_SAID = repr("")  # of a fingerprint: the key is that of a node without one


class Unrepeatable(Exception):  # a state of a value, not a mistake
    """A part of a node that equals nothing, not even itself: NaN, or an object without content we can read."""


class Keys:
    """The keys of one run, filled parents first; nodes made at run time are added as they appear.

    A volatile node is one whose result must not be found again: its key is unique to this run, and so are those of
    everything behind it. `files` are those a node names, with the content they had when the key was made; `said` is
    what a fingerprint told that looks at files of its own.
    """

    def __init__(self, services: Services | None = None) -> None:
        self.services = services
        self.by_id: dict[str, str] = {}
        self.volatile: set[str] = set()
        self.files: dict[str, list[tuple[Path, str]]] = {}
        self.said: dict[str, tuple[GraphNode, str]] = {}
        self._prefixes: dict[int, str] = {}
        self._fresh = count()
        self._run = ""

    def fork(self) -> "Keys":
        """A copy that one run may extend."""
        other = Keys(self.services)
        other.by_id, other.volatile = dict(self.by_id), set(self.volatile)
        other.files, other.said = dict(self.files), dict(self.said)
        return other

    def still_holds(self, node_id: str) -> bool:
        """Whether the files a node names, or its fingerprint looks at, have the content that is in its key."""
        vertex, said = self.said.get(node_id, (None, ""))
        files = self.files.get(node_id, ())
        try:
            return (vertex is None or self._fingerprint(vertex) == said) and all(
                self.services is not None and self.services.content_hash(path) == content for path, content in files
            )
        except (EngineError, Unrepeatable):  # gone
            return False

    def add(self, vertex: GraphNode) -> str:
        """Compute and keep the key of a vertex whose sources have theirs."""
        node = vertex.node
        parts = [self._prefix(node)]
        if node.names_itself:
            parts.append(f"id{vertex.id!r}")
        try:
            if node.fingerprint is not None and (said := self._fingerprint(vertex)) != NOTHING_SAID:
                parts.append("changed" + said)
                if _looks_at_files(node):
                    self.said[vertex.id] = vertex, said
            parts += [self._input(vertex, name, vertex.inputs[name]) for name in sorted(vertex.inputs)]
            if vertex.ignored:
                parts += [f"{name!r}~{encode(value)}" for name, value in sorted(vertex.ignored.items())]
        except (Unrepeatable, RecursionError):  # or a literal of hundreds of levels
            self.volatile.add(vertex.id)
            parts.append(self._nonce())
        key = hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        self.by_id[vertex.id] = key
        return key

    def _prefix(self, node: Node) -> str:
        prefix = self._prefixes.get(id(node))
        if prefix is None:
            prefix = self._prefixes[id(node)] = f"{node.class_type}\x1f{node.schema}\x1f{node.revision}"
        return prefix

    def _input(self, vertex: GraphNode, name: str, value: Any) -> str:
        if type(value) is Link:
            key = self.by_id.get(value.source)
            if key is None:
                raise Unrepeatable
            if value.source in self.volatile:
                self.volatile.add(vertex.id)
            return f"{name!r}>{key}.{value.slot}"
        declared = vertex.node.declared.get(name)
        if declared is not None and declared.file is not None and self.services is not None and isinstance(value, str):
            paths = declared.file.paths(self.services, value)
            contents = [self.services.content_hash(path) for path in paths]
            self.files.setdefault(vertex.id, []).extend(zip(paths, contents, strict=True))
            return f"{name!r}#{'+'.join(contents) or value}"
        behind = declared.choices.content if declared is not None and declared.choices is not None else None
        content = behind(value) if behind is not None and isinstance(value, str) else ""
        return f"{name!r}={encode(value)}#{content}" if content else f"{name!r}={encode(value)}"

    def _fingerprint(self, vertex: GraphNode) -> str:
        """`IS_CHANGED`: its answer is part of the key; an exception counts as "changes always".

        One of our own that names `services` is given them.
        """
        hook = vertex.node.fingerprint
        assert hook is not None
        try:
            arguments = hook_arguments(hook, vertex.node, vertex.id, vertex.inputs)
            if _looks_at_files(vertex.node):
                arguments["services"] = self.services
            answer = call_now(hook, arguments)
        except Exception as error:  # a pack's own code: its failure must not stop the plan
            raise Unrepeatable from error
        return encode(answer)

    def _nonce(self) -> str:
        self._run = self._run or uuid4().hex
        return f"!{self._run}.{next(self._fresh)}"


def _looks_at_files(node: Node) -> bool:
    """Whether its fingerprint is one of our own that names `services`."""
    return node.fingerprint is not None and node.is_trusted and _names_services(node.fingerprint)


@cache
def _names_services(hook: Callable[..., Any]) -> bool:
    """Asked with every key: a signature takes longer than what few hooks tell."""
    return "services" in signature(hook).parameters


def encode(value: Any) -> str:
    """A text that differs wherever values differ, in type too: `1`, `1.0` and `True` are three values."""
    kind = type(value)
    if kind in SCALARS:
        if value != value:
            raise Unrepeatable
        return repr(value)
    if kind is dict:
        return _mapping(value)
    if kind in (list, tuple):
        return f"{kind.__name__}[{','.join(map(encode, value))}]"
    if kind is bytes:
        return f"bytes:{hashlib.blake2b(value, digest_size=16).hexdigest()}"
    raise Unrepeatable


def _mapping(value: Mapping[Any, Any]) -> str:
    return "{" + ",".join(sorted(f"{encode(key)}:{encode(item)}" for key, item in value.items())) + "}"
