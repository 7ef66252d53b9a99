"""What happened to a run, one frozen record each. Adapters turn them into their protocol's messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Tier = Literal["memory", "disk"]
Source = Literal["executed", "memory", "disk"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run began; `cached` are the nodes of the prompt whose result is there already, in prompt order."""

    cached: Sequence[str]


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node's function is about to be called. `display_id` differs from `node_id` for nodes made at run time."""

    node_id: str
    class_type: str
    display_id: str


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """`value` of `maximum` done, with an opaque preview now and then."""

    node_id: str
    value: float
    maximum: float
    preview: Any = None


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """A node has its result: computed now, or taken from the cache (`source`)."""

    node_id: str
    class_type: str
    display_id: str
    source: Source
    milliseconds: float
    ui: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NodeBlocked:
    """A blocker with a message stopped a call of this node; the run goes on."""

    node_id: str
    class_type: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeExpanded:
    """A node put new nodes in its place."""

    node_id: str
    new_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A node raised. `node_id` is the node of the prompt, `inner_id` the node itself where it was made at run time."""

    node_id: str
    class_type: str
    message: str
    exception_type: str
    traceback: Sequence[str] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    executed: Sequence[str] = ()
    inner_id: str = ""


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """The run was stopped on request, before or in this node."""

    node_id: str
    class_type: str
    executed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class RunSucceeded:
    """Every needed node has its result."""


Event = (
    RunStarted
    | NodeStarted
    | NodeProgress
    | NodeFinished
    | NodeBlocked
    | NodeExpanded
    | RunFailed
    | RunCancelled
    | RunSucceeded
)
