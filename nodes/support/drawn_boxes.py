"""Rectangles drawn over pictures: outlines, labels and rows of colours. The look is our own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["INKS", "Drawn", "drawn_over"]

INKS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
MAX_LABEL = 200  # characters
MAX_SWATCHES = 16


@dataclass(frozen=True, slots=True)
class Drawn:
    """A rectangle in pixels, what is written at its upper left corner, and colours to show below that."""

    x: int
    y: int
    width: int
    height: int
    label: str = ""
    palette: Sequence[str] = field(default_factory=tuple)


def drawn_over(image: Tensor, boxes: Sequence[Drawn]) -> Tensor:
    """A picture [H, W, 3] in 0..1 with these rectangles; what lies outside is cut off. Pixels not drawn on stay."""
    height, width = image.shape[:2]
    layer = Pillow.new("RGBA", (width, height))
    pen, line = ImageDraw.Draw(layer), max(1, min(width, height) // 256)
    font = ImageFont.load_default(size=max(10, min(width, height) // 40))
    for place, box in enumerate(boxes):
        ink = INKS[place % len(INKS)]
        corner = (box.x, box.y, box.x + max(box.width, 1) - 1, box.y + max(box.height, 1) - 1)
        pen.rectangle(corner, outline=ink, width=line)
        label = box.label[:MAX_LABEL]
        below = box.y + line
        if label:
            edges = pen.textbbox((box.x + line, below), label, font=font)
            pen.rectangle(edges, fill=ink)
            pen.text((box.x + line, below), label, fill="white", font=font)
            below = int(edges[3]) + 1
        _swatches(pen, box, below, max(6, line * 6))
    ink_layer = torch.from_numpy(np.array(layer).astype(np.float32) / 255.0).to(image.device)
    share = ink_layer[..., 3:]
    return image * (1.0 - share) + ink_layer[..., :3] * share


def _swatches(pen: ImageDraw.ImageDraw, box: Drawn, top: int, side: int) -> None:
    """Squares in a row; what is not a colour is left out."""
    left = box.x + 2
    for colour in box.palette[:MAX_SWATCHES]:
        try:
            rgb = ImageColor.getrgb(colour)[:3]
        except ValueError:
            continue
        pen.rectangle((left, top, left + side - 1, top + side - 1), fill=(*rgb, 255))
        left += side + 1
