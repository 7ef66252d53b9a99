"""Boxes in columns from left to right, each right of what it needs, ordered so that few lines cross. Plain geometry."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Box", "placed"]

GAP_X, GAP_Y = 60, 40
SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A size, and the boxes it needs."""

    width: int
    height: int
    needs: tuple[str, ...] = ()


def placed(boxes: Mapping[str, Box]) -> dict[str, tuple[int, int]]:
    """The top left corner of every box."""
    columns = _columns(boxes)
    for _ in range(SWEEPS):
        _untangle(boxes, columns)
    spots: dict[str, tuple[int, int]] = {}
    x = 0
    for column in columns:
        y = 0
        for name in column:
            spots[name] = x, y
            y += boxes[name].height + GAP_Y
        x += max(boxes[name].width for name in column) + GAP_X
    return spots


def _columns(boxes: Mapping[str, Box]) -> list[list[str]]:
    """One right of the furthest it needs; what needs nothing stands just left of who needs it first."""
    users = _users(boxes)
    depth = _depths(boxes, users)
    for name, box in boxes.items():
        if not any(need in boxes for need in box.needs) and users[name]:
            depth[name] = max(0, min(depth[user] for user in users[name]) - 1)
    columns: dict[int, list[str]] = {}
    for name in boxes:
        columns.setdefault(depth[name], []).append(name)
    return [columns[at] for at in sorted(columns)]


def _users(boxes: Mapping[str, Box]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {name: [] for name in boxes}
    for name, box in boxes.items():
        for need in dict.fromkeys(box.needs):
            if need in users:
                users[need].append(name)
    return users


def _depths(boxes: Mapping[str, Box], users: Mapping[str, list[str]]) -> dict[str, int]:
    """The longest way from any start; boxes in a ring stay at 0."""
    missing = {name: sum(need in boxes for need in set(box.needs)) for name, box in boxes.items()}
    depth = dict.fromkeys(boxes, 0)
    ready = [name for name, count in missing.items() if count == 0]
    while ready:
        name = ready.pop()
        for user in users[name]:
            depth[user] = max(depth[user], depth[name] + 1)
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    return depth


def _untangle(boxes: Mapping[str, Box], columns: list[list[str]]) -> None:
    """Order every column by the mean height of its neighbours (barycentres, Sugiyama 1981), to and fro."""
    users = _users(boxes)
    place = {name: at for column in columns for at, name in enumerate(column)}

    def mean(name: str, neighbours: tuple[str, ...] | list[str]) -> float:
        known = [place[neighbour] for neighbour in neighbours if neighbour in place]
        return sum(known) / len(known) if known else place[name]

    for column in columns:
        column.sort(key=lambda name: mean(name, boxes[name].needs))
        place.update((name, at) for at, name in enumerate(column))
    for column in reversed(columns):
        column.sort(key=lambda name: mean(name, users[name]))
        place.update((name, at) for at, name in enumerate(column))
