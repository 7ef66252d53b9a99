"""Small real nodes for tests: arithmetic, texts, and an output that shows what it got."""

from collections.abc import Mapping
from typing import Annotated, Any

from sigmagraph.engine.graph.graph import Graph
from sigmagraph.engine.graph.node import Multiline, Node, Options, Output, Range, Socket, Tooltip, UiResult, node
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate

Anything = Annotated[Any, Socket("*")]
Picture = Annotated[str, Socket("IMAGE")]
Mode = Annotated[str, Options(["normal", "screen", "multiply"])]
Size = Annotated[int, Range(16, 4096, step=16, strict=True)]


@node("Add", category="test")
def add(*, a: int = 0, b: Annotated[int, Range(-1000, 1000)] = 1) -> int:
    """The sum."""
    return a + b


@node("Join", category="test")
def join(*, first: str = "", second: Annotated[str, Multiline()] = "", sep: str | None = None) -> str:
    """Two texts as one."""
    return (sep or "").join((first, second))


@node("Blank", category="test", outputs=(Output("IMAGE", tooltip="a picture"),))
def blank(*, width: Size = 64, height: Size = 64) -> str:
    """A picture, as a text."""
    return f"{width}x{height}"


@node("Blend", category="test", display_name="Blend pictures")
def blend(
    *,
    image: Picture,
    factor: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("how much")] = 0.5,
    mode: Mode = "normal",
    flip: bool = False,
    other: Picture | None = None,
) -> Picture:
    """One picture over another."""
    return f"{image}*{factor}/{mode}/{flip}/{other}"


@node("Split", category="test", outputs=("INT", "INT"))
def split(*, value: int = 0) -> tuple[int, int]:
    """Tens and ones."""
    return divmod(value, 10)


@node("Show", category="test", output_node=True)
def show(*, value: Anything) -> UiResult:
    """Shows what it got."""
    return UiResult(ui={"shown": [value]})


NODES: dict[str, Node] = {made.class_type: made for made in (add, join, blank, blend, split, show)}


def prompt(**nodes: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`prompt(a=("Add", {"a": 1}))` in API form."""
    return {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in nodes.items()}


def checked(document: Mapping[str, Any], nodes: Mapping[str, Node] = NODES) -> Graph:
    """The validated graph of an API prompt."""
    return validate(parse_workflow(document), nodes)


def chain(length: int) -> dict[str, Any]:
    """`length` additions of one behind each other, shown at the end."""
    links = {str(i): {"class_type": "Add", "inputs": {"a": [str(i - 1), 0] if i else 0}} for i in range(length)}
    for link in links.values():
        link["inputs"]["b"] = 1
    return links | {"end": {"class_type": "Show", "inputs": {"value": [str(length - 1), 0]}}}
