"""Curves of tone: monotone cubics through points (Fritsch and Carlson 1980), and straight lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from sigmagraph.engine.errors import BadValue

__all__ = ["table_of"]

MOST_POINTS = 1_000


def table_of(curve: Mapping[str, Any] | None, count: int) -> list[float]:
    """The curve's values at `count` even places from 0 to 1; beyond its ends it is level. None is the identity."""
    points = _points(curve)
    slopes = _slopes(points) if curve is not None and curve.get("interpolation") == "monotone_cubic" else None
    return [_at(points, slopes, place / (count - 1)) for place in range(count)]


def _points(curve: Mapping[str, Any] | None) -> list[tuple[float, float]]:
    written = curve.get("points") if curve is not None else [[0, 0], [1, 1]]
    try:
        found = sorted({float(x): float(y) for x, y in written or ()}.items())
    except (TypeError, ValueError) as error:
        raise BadValue("curve", "its points", "pairs of numbers") from error
    if not 1 <= len(found) <= MOST_POINTS:
        raise BadValue("curve", f"{len(found)} points", f"1 to {MOST_POINTS}")
    return found


def _slopes(points: Sequence[tuple[float, float]]) -> list[float]:
    """A slope for each point that lets no piece overshoot: the harmonic mean of both sides, 0 at a turn."""
    if len(points) < 2:
        return [0.0]
    rises = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False)]
    inner = [2 * a * b / (a + b) if a * b > 0 else 0.0 for a, b in zip(rises, rises[1:], strict=False)]
    return [rises[0], *inner, rises[-1]]


def _at(points: Sequence[tuple[float, float]], slopes: Sequence[float] | None, x: float) -> float:
    if x <= points[0][0]:
        return points[0][1]
    for at, ((x0, y0), (x1, y1)) in enumerate(zip(points, points[1:], strict=False)):
        if x <= x1:
            width, t = x1 - x0, (x - x0) / (x1 - x0)
            if slopes is None:
                return y0 + (y1 - y0) * t
            cubic = (2 * t**3 - 3 * t**2 + 1) * y0 + (3 * t**2 - 2 * t**3) * y1
            return cubic + width * ((t**3 - 2 * t**2 + t) * slopes[at] + (t**3 - t**2) * slopes[at + 1])
    return points[-1][1]
