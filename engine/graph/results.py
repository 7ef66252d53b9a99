"""What a node may hand back beside plain values: progress while it works, user-interface records when it is done."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """`value` of `maximum` done. Yielded by generator nodes; each yield is a place to report, cancel or interleave.

    `preview` is opaque to the engine: whatever the front end of the job knows how to show.
    """

    value: float
    maximum: float
    preview: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Joinable:
    """Work that one call may do for several jobs: a generator node yields it, and is sent its answer, or None.

    Pieces with equal keys can be done together: `together(arguments)` gives one answer per argument, in order.
    Whether they are is the engine's choice; a node that is sent None does its piece itself.
    """

    key: Hashable
    argument: Any
    together: Callable[[Sequence[Any]], Sequence[Any]]

    def alone(self) -> Any:
        """The answer to this piece, for a node that was sent none."""
        (answer,) = self.together([self.argument])
        return answer


@dataclass(frozen=True, slots=True)
class UiResult:
    """A node's value together with what the user interface shows, `{"images": [{filename, subfolder, type}]}`."""

    value: Any = None
    ui: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocker:
    """An output that stops every call it reaches. With a message, the first node it stops reports it."""

    message: str | None = None


@dataclass(frozen=True, slots=True)
class Expansion:
    """Nodes to run in place of the node that returns this, in API form, and what they give back.

    `result` holds one item per output: a value, or a link `[node id, output]` into the new nodes or any existing one.
    """

    graph: Mapping[str, Any]
    result: Any = ()
    ui: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Row:
    """What one call gave: values by slot, or nodes to run instead; `blocked` is the blocker that prevented the call."""

    values: tuple[Any, ...] = ()
    ui: Mapping[str, Any] | None = None
    expansion: Expansion | None = None
    blocked: Blocker | None = None
