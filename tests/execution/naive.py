"""A naive evaluator of the rules pack, by plain recursion over the document: what the engine must agree with.

It knows lists, lazy inputs, expansion and blockers, and notes which nodes it called, equal ones once.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

BLOCKED = object()
Slots = list[list[Any]]


class Naive:
    """Evaluates nodes of one document on demand."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.results: dict[str, Slots] = {}
        self.called: set[str] = set()
        self.forms: dict[str, str] = {}
        self.inner: set[str] = set()

    def form(self, node_id: str) -> str:
        """The node written out with everything behind it, without any id."""
        if node_id in self.forms:
            return self.forms[node_id]
        node = self.document[node_id]
        inputs = (
            (name, f"{self.form(value[0])}.{value[1]}" if isinstance(value, list) else repr(value))
            for name, value in sorted(node["inputs"].items())
        )
        own = node_id if node["class_type"] in ("P.Gather",) else ""
        self.forms[node_id] = short(f"{own}{node['class_type']}({','.join('='.join(pair) for pair in inputs)})")
        return self.forms[node_id]

    def slot(self, node_id: str, slot: int) -> list[Any]:
        """The values of an output."""
        form = self.form(node_id)
        if form not in self.results:
            self.results[form] = self.evaluate(node_id)
            self.called.add(form)
        return self.results[form][slot]

    def value(self, written: Any) -> list[Any]:
        """The list that arrives at an input."""
        return self.slot(*written) if isinstance(written, list) else [written]

    def evaluate(self, node_id: str) -> Slots:
        """Call a node."""
        node = self.document[node_id]
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "P.Switch":
            side = inputs["yes" if inputs["which"] else "no"]
            return self.mapped(lambda value: [value], [self.value(side)], 1)
        if kind == "P.Gather":
            values = self.value(inputs["values"])
            if any(value is BLOCKED for value in values):
                return [[BLOCKED]]
            return [[",".join(map(str, values)) + f"@{node_id}x1"]]
        if kind == "P.Twice":
            self.inner |= {form for value in self.value(inputs["value"]) for form in twice_forms(value)}
        function, names, outputs = KINDS[kind]
        return self.mapped(function, [self.value(inputs[name]) for name in names], outputs, spread=kind == "P.Range")

    @staticmethod
    def mapped(function: Callable[..., list[Any]], lists: list[list[Any]], outputs: int, spread: bool = False) -> Slots:
        """Call once per element; blocked elements block their results."""
        slots: Slots = [[] for _ in range(outputs)]
        for at in range(0 if any(not values for values in lists) else max(map(len, lists))):
            arguments = [values[min(at, len(values) - 1)] for values in lists]
            is_blocked = any(value is BLOCKED for value in arguments)
            row = [BLOCKED] * outputs if is_blocked else function(*arguments)
            for slot, value in zip(slots, row, strict=True):
                slot.extend(value if spread and not is_blocked else [value])
        return slots


def short(text: str) -> str:
    """A form that can be written out inside another one."""
    return hashlib.sha256(text.encode()).hexdigest()


def twice_forms(value: Any) -> tuple[str, str]:
    """The forms of the two additions that P.Twice expands into: nodes of the document may equal them."""
    first = short(f"Add(a={value!r},b=1)")
    return first, short(f"Add(a={first}.0,b=1)")


def block(value: int) -> list[Any]:
    """Odd numbers are blocked."""
    return [BLOCKED, BLOCKED] if value % 2 else [value, str(value)]


KINDS: dict[str, tuple[Callable[..., list[Any]], tuple[str, ...], int]] = {
    "Add": (lambda a, b: [a + b], ("a", "b"), 1),
    "Split": (lambda value: list(divmod(value, 10)), ("value",), 2),
    "P.Pair": (lambda a, b: [f"{a}-{b}"], ("a", "b"), 1),
    "P.Twice": (lambda value: [value + 2], ("value",), 1),
    "P.Block": (block, ("value",), 2),
    "P.Range": (lambda start, count: [list(range(start, start + count))], ("start", "count"), 1),
}
