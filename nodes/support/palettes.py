"""Pictures in few colours: a palette by median cut, and three ways to spread the error."""

from functools import cache

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

__all__ = ["DITHERS", "quantized"]

DITHERS = ("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")
SPREAD = 512  # 8-bit levels that the pattern of a palette of one colour would span


def quantized(image: Tensor, colors: int, dither: str) -> Tensor:
    """One picture [H, W, 3] in at most `colors` colours."""
    picture = Pillow.fromarray((image * 255).to("cpu", torch.uint8).numpy())
    palette = picture.quantize(colors)  # median cut
    if dither.startswith("bayer"):
        chosen = _ordered(picture, palette, colors, int(dither.removeprefix("bayer-")))
    else:
        how = Pillow.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Pillow.Dither.NONE
        chosen = picture.quantize(colors, palette=palette, dither=how)
    return torch.from_numpy(np.array(chosen.convert("RGB")).astype(np.float32) / 255.0)


def _ordered(picture: Pillow.Image, palette: Pillow.Image, colors: int, order: int) -> Pillow.Image:
    """A threshold pattern added to the picture before the nearest colours are taken (Bayer 1973)."""
    levels = np.array(picture).astype(np.float64)
    height, width = levels.shape[:2]
    pattern = np.tile(_bayer(order), (-(-height // order), -(-width // order)))[:height, :width, None]
    moved = (levels + pattern * (SPREAD / colors)).clip(0, 255).round().astype(np.uint8)
    return Pillow.fromarray(moved).quantize(colors, palette=palette, dither=Pillow.Dither.NONE)


@cache
def _bayer(order: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Bayer's matrix of an order that is a power of 2, in -0.5..0.5."""
    ranks = np.zeros((1, 1))
    while len(ranks) < order:
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    return (ranks + 0.5) / order**2 - 0.5
