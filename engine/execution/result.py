"""What a run leaves behind: per node how it got its result and how long that took, ui records, and the error if any."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sigmagraph.engine.errors import Cancelled, EngineError

Outcome = Literal["executed", "memory", "disk", "unneeded", "failed"]


@dataclass(frozen=True, slots=True)
class NodeReport:
    """How one node got its result."""

    class_type: str
    outcome: Outcome
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run. `values` holds the outputs of the roots, a list per slot; `ui` what output nodes show."""

    nodes: Mapping[str, NodeReport]
    ui: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, tuple[list[Any], ...]] = field(default_factory=dict)
    error: EngineError | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was stopped on request."""
        return isinstance(self.error, Cancelled)

    @property
    def executed(self) -> list[str]:
        """The nodes whose function was called."""
        return [node_id for node_id, report in self.nodes.items() if report.outcome == "executed"]

    def or_raise(self) -> "RunResult":
        """Itself, or its error."""
        if self.error is not None:
            raise self.error
        return self
