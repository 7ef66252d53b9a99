"""Two pictures, channel by channel: how far apart are they? Limits come before decoding."""

import math
from io import BytesIO

from PIL import Image, ImageChops

from sigmagraph.engine.execution.replay import Comparison
from sigmagraph.engine.server.pictures import opened

__all__ = ["compare"]

MAX_PIXELS = 128 * 1024 * 1024


def compare(one: bytes, other: bytes, max_pixels: int = MAX_PIXELS) -> Comparison:
    """The figures for two picture files; raises `UnreadableImage` where one is none."""
    first, second = (opened(BytesIO(data), max_pixels) for data in (one, other))
    if first.size != second.size:
        return Comparison(255, 0.0, is_same_size=False)
    mode = first.mode if first.mode == second.mode and first.mode in ("RGB", "RGBA", "L") else "RGBA"
    return _figures(ImageChops.difference(first.convert(mode), second.convert(mode)))


def _figures(difference: Image.Image) -> Comparison:
    """From the histogram: no pixel passes through Python."""
    counts = difference.histogram()
    total = sum(counts)
    max_abs = max(place % 256 for place, count in enumerate(counts) if count)
    mean_square = sum(count * (place % 256) ** 2 for place, count in enumerate(counts)) / total
    return Comparison(max_abs, math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square))
