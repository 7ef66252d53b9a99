"""One node, called: lists are mapped, blockers pass by, progress is yielded, whatever comes back is put in rows.

`calls(...)` is a generator. It yields `Progress` (report, cancel or interleave here), `Pending` (an awaitable that must
be finished before it goes on) and `Joinable` (work whose answer it is to be sent). It returns one `Row` per call. It
knows nothing of runs, caches or other nodes.
"""

import inspect
from collections.abc import Awaitable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sigmagraph.engine.execution.calling.context import CallContext
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.results import Blocker, Expansion, Joinable, Progress, Row, UiResult


@dataclass(slots=True)
class Pending:
    """Awaitables the driver must finish, together, before it steps the generator again.

    Where `is_last`, what follows is reading their results; else the node is called then, which may take its time.
    """

    work: Sequence[Awaitable[Any]]
    results: Sequence[Any] = ()
    is_last: bool = True


Calls = Generator[Progress | Pending | Joinable, Any, list[Row]]


def calls(
    node: Node,
    function: Any,
    arguments: Mapping[str, list[Any]],
    hidden: Mapping[str, Any],
    context: CallContext,
) -> Calls:
    """Call a node once per element of its input lists; a cancel is noticed before each call."""
    rows: list[Row | None] = []
    waiting: list[tuple[int, Awaitable[Any]]] = []
    for at, keywords in enumerate(slices(node, arguments, hidden)):
        context.begin_call(at)
        blocker = blocker_in(node, keywords)
        if blocker is not None:
            rows.append(Row((Blocker(),) * len(node.outputs), blocked=blocker))
            continue
        returned = function(**keywords)
        if inspect.isgenerator(returned):
            returned = yield from returned
        if hasattr(type(returned), "__await__"):
            waiting.append((len(rows), context.carry(returned)))
            rows.append(None)
        else:
            rows.append(read(node, returned))
    if waiting:
        pending = Pending([work for _, work in waiting])
        yield pending
        for (at, _), result in zip(waiting, pending.results, strict=True):
            rows[at] = read(node, result)
    return [row for row in rows if row is not None]


def slices(node: Node, arguments: Mapping[str, list[Any]], hidden: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The keyword arguments of each call: shorter lists repeat their last element, an empty list means no call."""
    if node.input_is_list:
        yield {**arguments, **{name: [value] for name, value in hidden.items()}}
        return
    lengths = {len(values) for values in arguments.values()}
    if lengths <= {1}:
        yield {**{name: values[0] for name, values in arguments.items()}, **hidden}
        return
    for at in range(0 if 0 in lengths else max(lengths)):
        yield {**{name: values[min(at, len(values) - 1)] for name, values in arguments.items()}, **hidden}


def blocker_in(node: Node, keywords: Mapping[str, Any]) -> Blocker | None:
    """The first blocker a call would receive."""
    for value in keywords.values():
        if isinstance(value, Blocker):
            return value
        if node.input_is_list and isinstance(value, list):
            inner = next((item for item in value if isinstance(item, Blocker)), None)
            if inner is not None:
                return inner
    return None


def read(node: Node, returned: Any) -> Row:
    """What one call returned, as a row."""
    if node.reads is not None:
        return node.reads(returned)
    if isinstance(returned, Blocker):
        return Row((returned,) * len(node.outputs))
    if isinstance(returned, Expansion):
        return Row(ui=returned.ui or None, expansion=returned)
    if isinstance(returned, UiResult):
        return Row(_values(node, returned.value), dict(returned.ui) or None)
    return Row(_values(node, returned))


def _values(node: Node, returned: Any) -> tuple[Any, ...]:
    wanted = len(node.outputs)
    if wanted == 0:
        return ()
    if wanted == 1:
        return (returned,)
    if isinstance(returned, Blocker):
        return (returned,) * wanted
    if not isinstance(returned, tuple) or len(returned) != wanted:
        found = f"{len(returned)} values" if isinstance(returned, tuple) else type(returned).__name__
        raise TypeError(f"the node returned {found}; it declares {wanted} outputs, so expected a tuple of {wanted}")
    return returned


def merge(node: Node, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], ...]:
    """Rows of values -> one list per slot; `Spread` values and list outputs are laid flat."""
    if len(rows) == 1 and len(rows[0]) == len(node.outputs):
        return tuple(_slot(value, output.is_list) for value, output in zip(rows[0], node.outputs, strict=True))
    width = max([len(node.outputs), *(len(row) for row in rows)])
    slots: tuple[list[Any], ...] = tuple([] for _ in range(width))
    for row in rows:
        for at, values in enumerate(slots):
            value = row[at] if at < len(row) else None
            values.extend(_slot(value, at < len(node.outputs) and node.outputs[at].is_list))
    return slots


def _slot(value: Any, is_list: bool) -> list[Any]:
    """What one call adds to a slot."""
    if isinstance(value, Spread):
        return list(value.values)
    if is_list and not isinstance(value, Blocker):
        if value is not None and not isinstance(value, Iterable):
            raise TypeError(f"the node returned {type(value).__name__} for a list output; expected a list")
        return list(value) if value is not None else []
    return [value]


@dataclass(frozen=True, slots=True)
class Spread:
    """All elements of a linked slot, in place of one value."""

    values: list[Any]


def merge_ui(rows: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The ui of several calls: for each key of the first, the lists behind each other."""
    shown = [row for row in rows if row is not None]
    if not shown:
        return None
    if len(shown) == 1:
        return dict(shown[0])
    return {key: [item for row in shown for item in row.get(key, ())] for key in shown[0]}
