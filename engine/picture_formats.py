"""Which pictures are opened, from wherever they come. Imports Pillow and nothing else."""

from functools import cache

from PIL import Image

__all__ = ["readable_formats"]


@cache
def readable_formats() -> list[str]:
    """Every format that Pillow decodes itself: an EPS is a program, which it would have Ghostscript run."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]
