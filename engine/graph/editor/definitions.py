"""The subgraph definitions of a file, those inside of others too, by id. The editor keeps one list for all of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sigmagraph.engine.graph.editor.records import list_at, object_at

SHOWN = 80


def definitions_of(document: Mapping[str, Any], place: str, warnings: list[str]) -> dict[str, Any]:
    """Every definition by its id. Of several with one id the first counts, with a warning: editor 1.58.1 does that."""
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for definition, where in _every(document, place):
        identity = str(definition.get("id"))
        first = found.setdefault(identity, definition)
        if places.setdefault(identity, where) != where and first != definition:
            warnings.append(
                f"{where}: the subgraph {_name(definition)} has the id of {_name(first)} at {places[identity]}, "
                f"{identity[:SHOWN]}, and is another; the first counts, as in the editor"
            )
    return found


def _every(document: Mapping[str, Any], place: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Definitions with their places, each before those inside it."""
    waiting = _inside(document, place)
    while waiting:
        definition, where = waiting.pop()
        yield definition, where
        waiting += _inside(definition, where)


def _inside(holder: Mapping[str, Any], place: str) -> list[tuple[dict[str, Any], str]]:
    """The definitions right inside one, the last first."""
    where = f"{place}.definitions.subgraphs"
    listed = list_at(holder.get("definitions") or {}, "subgraphs", place)
    found = [(object_at(definition, f"{where}[{at}]"), f"{where}[{at}]") for at, definition in enumerate(listed)]
    return found[::-1]


def _name(definition: Mapping[str, Any]) -> str:
    return repr(str(definition.get("name") or "")[:SHOWN])
