"""Which nodes stand in which frame of a canvas: a node belongs to a frame that holds its centre."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.editor.records import Drawing, EditorNode

__all__ = ["DrawnFrames"]

TITLE_HEIGHT = 30  # of a node's head, above its position
MOST_LOOKS = 5_000_000  # at frames and nodes, of one drawing: a small file can restrict many values by many frames
Box = tuple[float, float, float, float]


class DrawnFrames:
    """The frames of one drawing and the ids of the nodes in each, found when they are first asked for."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing, self._looks = drawing, 0

    def beside(self, node: EditorNode) -> set[str]:
        """The ids of the nodes that share a frame with a node, itself among them."""
        return {i for _, ids in self._looked_at() if node.id in ids for i in ids}

    def titled(self, fits: Callable[[str], bool]) -> set[str]:
        """The ids of the nodes in frames whose title fits."""
        return {i for title, ids in self._looked_at() if fits(title) for i in ids}

    def look(self, count: int) -> None:
        """Count so many more looks. Raises `BadDocument` beyond what any drawing needs."""
        self._looks += count
        if self._looks > MOST_LOOKS:
            raise BadDocument(f"broadcasts restricted by groups and colours make more than {MOST_LOOKS} looks at nodes")

    def _looked_at(self) -> list[tuple[str, set[str]]]:
        self.look(sum(1 + len(ids) for _, ids in self._members))
        return self._members

    @cached_property
    def _members(self) -> list[tuple[str, set[str]]]:
        self.look(len(self._drawing.groups) * len(self._drawing.nodes))
        return list(_groups_of(self._drawing))


def _groups_of(drawing: Drawing) -> Iterator[tuple[str, set[str]]]:
    """The title of every frame and the ids of the nodes in it."""
    centres = {node.id: centre for node in drawing.nodes.values() if (centre := _centre(node))}
    for group in drawing.groups:
        box = _numbers(group.get("bounding"), 4) if isinstance(group, dict) else None
        if box is not None:
            left, top, width, height = box
            inside = {i for i, (x, y) in centres.items() if left <= x < left + width and top <= y < top + height}
            yield str(group.get("title", "")), inside


def _centre(node: EditorNode) -> tuple[float, float] | None:
    place, size = _numbers(node.written.get("pos"), 2), _numbers(node.written.get("size"), 2)
    if place is None or size is None:
        return None
    return place[0] + size[0] / 2, place[1] - TITLE_HEIGHT + (size[1] + TITLE_HEIGHT) / 2


def _numbers(written: Any, count: int) -> list[float] | None:
    """A list of numbers, also as the object `{"0": x, "1": y}` that old files have."""
    if isinstance(written, dict):
        written = [written.get(str(at)) for at in range(count)]
    if not isinstance(written, list) or len(written) < count:
        return None
    numbers = written[:count]
    return numbers if all(type(number) in (int, float) for number in numbers) else None
