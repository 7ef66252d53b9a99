"""Two picture files, compared in this process: for the command line, whose pictures are the user's own."""

from io import BytesIO

from sigmagraph.engine.execution.replay import PictureComparison
from sigmagraph.engine.server.decoding import operations

__all__ = ["compare"]

MAX_PIXELS = 128 * 1024 * 1024


def compare(one: bytes, other: bytes, max_pixels: int = MAX_PIXELS) -> PictureComparison:
    """The figures for two picture files; raises `UnreadableImage` where one is none."""
    images = [operations.decoded(operations.opened(BytesIO(data), max_pixels)) for data in (one, other)]
    return PictureComparison(**operations.compare(images))
