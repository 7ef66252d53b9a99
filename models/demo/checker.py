"""Does a picture show what its scene says? Looks at pixels only: colours, connected regions, outlines.

Independent of any model: it knows the palette and the outlines, nothing of how a picture was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from models.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing, distance

LEAST_AREA = 0.006
"""Regions smaller than this part of the picture are specks (the smallest thing drawn covers 0.013)."""
PLACE_TOLERANCE = 0.12
"""Half of the distance between neighbouring places, in picture sides."""


@dataclass(frozen=True)
class Found:
    """One region: its best outline and colour, centre in picture sides, and how well the outline fits (IoU)."""

    shape: str
    colour: str
    x: float
    y: float
    overlap: float


Spot = TypeVar("Spot", Found, Thing)


@dataclass(frozen=True)
class Verdict:
    """What was found, and what of it agrees with the scene."""

    found: tuple[Found, ...]
    has_shapes: bool
    has_colours: bool
    has_positions: bool
    has_background: bool

    @property
    def is_right(self) -> bool:
        """Shape, colour and position of every thing, and nothing else in the picture."""
        return self.has_shapes and self.has_colours and self.has_positions


def check(image: Tensor, scene: Scene) -> Verdict:
    """Compare `image` [3, H, W] in 0..1 with `scene`."""
    found = things_in(image)
    is_background = background_of(image) == scene.background
    if len(found) != len(scene.things):
        return Verdict(found, False, False, False, is_background)
    pairs = list(zip(_by_place(found), _by_place(scene.things), strict=True))
    return Verdict(
        found,
        has_shapes=all(seen.shape == thing.shape for seen, thing in pairs),
        has_colours=all(seen.colour == thing.colour for seen, thing in pairs),
        has_positions=all(
            abs(seen.x - thing.x) < PLACE_TOLERANCE and abs(seen.y - thing.y) < PLACE_TOLERANCE for seen, thing in pairs
        ),
        has_background=is_background,
    )


def _by_place(things: Sequence[Spot]) -> list[Spot]:
    return sorted(things, key=lambda thing: (round(thing.y * 4), thing.x))


def _border(image: Tensor) -> Tensor:
    """The outermost pixels, [3, n]."""
    return torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)


def background_of(image: Tensor) -> str:
    """The background name nearest to the middle colour of the border."""
    middle = _border(image).median(dim=1).values
    return min(BACKGROUNDS, key=lambda name: float((torch.tensor(BACKGROUNDS[name]) - middle).norm()))


def things_in(image: Tensor) -> tuple[Found, ...]:
    """Every coloured region large enough to be a thing."""
    inside = coloured(image)
    found = []
    for region in regions(inside):
        if region.float().mean() >= LEAST_AREA:
            found.append(_described(image, region))
    return tuple(found)


def coloured(image: Tensor) -> Tensor:
    """Pixels [H, W] that differ in hue from the background: shadows and soft light do not count."""
    background = _border(image).median(dim=1).values[:, None, None]
    chroma = image - image.mean(dim=0, keepdim=True)
    own = background - background.mean()
    # A shadow dims a background colour, so its chroma lies between zero and the background's.
    along = ((chroma * own).sum(dim=0) / own.square().sum().clamp(min=1e-3)).clamp(0, 1.15)
    distance_in_hue: Tensor = (chroma - along * own).norm(dim=0)
    return distance_in_hue > 0.16


def regions(mask: Tensor) -> list[Tensor]:
    """The 4-connected parts of a boolean mask [H, W], by spreading the largest index until nothing changes."""
    height, width = mask.shape
    labels = torch.where(mask, torch.arange(1, height * width + 1).view(height, width), 0)
    while True:
        padded = torch.nn.functional.pad(labels, (1, 1, 1, 1))
        spread = torch.stack([labels, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]).amax(
            dim=0
        )
        spread = torch.where(mask, spread, 0)
        if torch.equal(spread, labels):
            return [labels == label for label in labels.unique() if label != 0]
        labels = spread


def _described(image: Tensor, region: Tensor) -> Found:
    height, width = region.shape
    rows, columns = region.any(dim=1).nonzero().flatten(), region.any(dim=0).nonzero().flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    fits = {shape: _overlap(region[top:bottom, left:right], shape) for shape in SHAPES}
    shape = max(fits, key=lambda name: fits[name])
    return Found(
        shape=shape,
        colour=_colour(image[:, region]),
        x=(left + right) / 2 / width,
        y=(top + bottom) / 2 / height,
        overlap=fits[shape],
    )


def _colour(pixels: Tensor) -> str:
    """The palette colour nearest to the middle pixel of [3, n]."""
    middle = pixels.median(dim=1).values
    return min(COLOURS, key=lambda name: float((torch.tensor(COLOURS[name]) - middle).norm()))


def _overlap(region: Tensor, shape: str) -> float:
    """Intersection over union of a cropped region with the outline stretched to the same box."""
    template = _template(shape)
    rows = ((torch.arange(region.shape[0]) + 0.5) / region.shape[0] * template.shape[0]).long()
    columns = ((torch.arange(region.shape[1]) + 0.5) / region.shape[1] * template.shape[1]).long()
    stretched = template[rows][:, columns]
    return float((stretched & region).sum() / (stretched | region).sum())


def _template(shape: str) -> Tensor:
    """The outline's inside, cut to its bounding box."""
    axis = torch.linspace(-1.5, 1.5, 301)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = distance(shape, x, y) < 0
    rows, columns = inside.any(dim=1).nonzero().flatten(), inside.any(dim=0).nonzero().flatten()
    return inside[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
