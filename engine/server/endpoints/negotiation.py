"""What a client wants back: image bytes or JSON, read from `Accept`. Knows no endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Wish", "wish"]

Wish = Literal["image", "json"] | None


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One media range of the header, with its weight and place."""

    kind: str
    weight: float
    place: int


def wish(accept: str) -> Wish:
    """`image` or `json` where the header prefers one, None where it does not care.

    An image type that is named wins over JSON unless JSON has more weight or, named too, stands before it. JSON wins
    only over what has less weight: `application/json, text/plain, */*`, which axios sends with everything, says
    nothing.
    """
    ranges = [media for media in _ranges(accept) if media.weight > 0]
    image, json = _first(ranges, "image/"), _first(ranges, "application/json")
    anything = max((media.weight for media in ranges if media.kind == "*/*"), default=0.0)
    if image is not None:
        json_weight = json.weight if json is not None else anything
        is_before = json is not None and json.place < image.place
        return "json" if json_weight > image.weight or (json_weight == image.weight and is_before) else "image"
    if json is not None and json.weight > anything:
        return "json"
    return None


def _ranges(accept: str) -> Sequence[MediaRange]:
    found = []
    for place, part in enumerate(accept.split(",")):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
        found.append(MediaRange(kind.lower(), _weight(weights), place))
    return found


def _weight(written: list[str]) -> float:
    try:
        return float(written[0]) if written else 1.0
    except ValueError:
        return 1.0


def _first(ranges: Sequence[MediaRange], kind: str) -> MediaRange | None:
    """The range of that kind with the most weight, the first of equals."""
    matching = [media for media in ranges if media.kind.startswith(kind)]
    return max(matching, key=lambda media: (media.weight, -media.place), default=None)
