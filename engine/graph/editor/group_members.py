"""Which nodes stand in which frame of a canvas: a node belongs to a frame that holds its centre."""

from collections.abc import Iterator
from typing import Any

from sigmagraph.engine.graph.editor.records import Drawing, EditorNode

__all__ = ["groups_of", "in_group_of"]

TITLE_HEIGHT = 30  # of a node's head, above its position
Box = tuple[float, float, float, float]


def groups_of(drawing: Drawing) -> Iterator[tuple[str, set[str]]]:
    """The title of every frame and the ids of the nodes in it."""
    centres = {node.id: centre for node in drawing.nodes.values() if (centre := _centre(node))}
    for group in drawing.groups:
        box = _numbers(group.get("bounding"), 4) if isinstance(group, dict) else None
        if box is not None:
            left, top, width, height = box
            inside = {i for i, (x, y) in centres.items() if left <= x < left + width and top <= y < top + height}
            yield str(group.get("title", "")), inside


def in_group_of(drawing: Drawing, node: EditorNode) -> set[str]:
    """The ids of the nodes that share a frame with a node, itself among them."""
    return {i for _, ids in groups_of(drawing) if node.id in ids for i in ids}


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
