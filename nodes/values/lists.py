"""Lists whose items travel one by one."""

from collections.abc import Sequence
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Autogrow, MatchType, Output, Socket, input_of, node

__all__ = ["NODES"]

ANY = MatchType("type")


@node(
    "CreateList",
    category="utils",
    display_name="Create List",
    input_is_list=True,
    outputs=[Output("*", "list", is_list=True, match=ANY)],
)
def create_list(
    *,
    inputs: Annotated[
        dict[str, Sequence[Any]], Autogrow.numbered(input_of("input", Annotated[Any, ANY]), "input", least=1, most=50)
    ],
) -> list[Any]:
    """The items of all inputs as one list, in order."""
    return [item for items in inputs.values() for item in items]


@node(
    "GetItemFromList",
    category="utils",
    display_name="Get Item from List",
    input_is_list=True,
    outputs=[Output("*", match=ANY)],
)
def get_item_from_list(*, list: Annotated[Sequence[Any], ANY], index: Annotated[Sequence[int], Socket("INT")]) -> Any:
    """One item, counted from 0; a negative number counts from the end."""
    place = index[0]
    if not -len(list) <= place < len(list):
        raise BadValue("index", place, f"from {-len(list)} to {len(list) - 1}: the list has {len(list)} items")
    return list[place]


NODES = (create_list, get_item_from_list)
