"""What can be wrong with a workflow, one record each. Codes are those existing clients match on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.errors import nearest, with_article
from sigmagraph.engine.graph.node import Input

LONGEST_LIST = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong, with its place. `node_id` is None for what concerns the whole workflow.

    `declared` is the input's `[type, options]`; `extra` holds what only some codes know (`linked_node`,
    `received_type`, `exception_type` ...).
    """

    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    received: Any = None
    allowed: Any = None
    nearest: str | None = None
    declared: list[Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        place = f"node {self.node_id} ({self.class_type})" if self.node_id is not None else "workflow"
        socket = f".{self.input}" if self.input is not None else ""
        hint = f"; did you mean {self.nearest!r}?" if self.nearest is not None else ""
        return f"{place}{socket}: {self.message}{hint}"


@dataclass(slots=True)
class Place:
    """Where a check looks: node and input, so that each check names only what it found."""

    node_id: str
    class_type: str
    input: Input

    def problem(self, code: str, message: str, **details: Any) -> Problem:
        """A problem at this place; details are `Problem` fields, anything else goes into `extra`."""
        known = {name: details.pop(name) for name in ("received", "allowed", "nearest") if name in details}
        declared = [self.input.type, dict(self.input.options)]
        return Problem(
            code, message, self.node_id, self.class_type, self.input.name, declared=declared, extra=details, **known
        )

    def missing(self) -> Problem:
        """A required input that is not there."""
        return self.problem("required_input_missing", f"required input is missing; expected {self.input.type}")

    def wrong_type(self, value: Any, why: str) -> Problem:
        """A literal that cannot become the declared type."""
        message = f"{value!r} is not {with_article(self.input.type)} ({why})"
        return self.problem(
            "invalid_input_type", message, received=value, allowed=self.input.type, exception_message=why
        )

    def not_in_list(self, value: Any, allowed: list[Any]) -> Problem:
        """A combo value that is not among the options."""
        texts = [choice for choice in allowed if isinstance(choice, str)]
        match = nearest(value, texts) if isinstance(value, str) else None
        listed = f"one of {allowed!r}" if len(allowed) <= LONGEST_LIST else f"one of a list of {len(allowed)}"
        message = f"{value!r} is not in the list; expected {listed if allowed else 'a file, but the folder is empty'}"
        return self.problem("value_not_in_list", message, received=value, allowed=allowed, nearest=match)

    def out_of_range(self, value: float, low: float | None, high: float | None) -> Problem:
        """A number beyond its bounds."""
        is_small = low is not None and value < low
        code, bound = ("value_smaller_than_min", low) if is_small else ("value_bigger_than_max", high)
        span = f"{'-inf' if low is None else low} to {'inf' if high is None else high}"
        message = f"{value!r} is {'smaller' if is_small else 'bigger'} than {bound}; expected {span}"
        return self.problem(code, message, received=value, allowed=[low, high])

    def off_grid(self, value: float, low: float, step: float) -> Problem:
        """A number between the steps of a strict grid."""
        below = low + (value - low) // step * step
        message = f"{value!r} is off the grid of {step}; nearest are {below} and {below + step}"
        return self.problem("value_off_grid", message, received=value, allowed=[below, below + step])
