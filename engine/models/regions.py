"""Where and how strongly an entry of a conditioning acts: a rectangle, a mask, a weight (regional prompting).

A prediction is the mean of its entries' estimates, weighed place by place. An entry with a rectangle is asked about
that part of the state alone; without a mask its weight falls off towards the edges that lie inside the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Area", "Region", "Window", "weighted_mean"]

FADE = 8  # places over which an edge inside the picture falls off
SMALLEST_BOX = 8  # places of the rectangle round a mask
NOTHING = 1e-37  # the weight where no entry acts


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a state in whole places."""

    top: int
    left: int
    height: int
    width: int

    def of(self, planes: Tensor) -> Tensor:
        """That part of planes [..., H, W]."""
        return planes[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def holds(self, other: "Window") -> bool:
        """Whether another rectangle lies within this one."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.top + self.height >= other.top + other.height
            and self.left + self.width >= other.left + other.width
        )


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in places of the latent, or with `is_share` in shares of its sides."""

    height: float
    width: float
    top: float
    left: float
    is_share: bool = False

    def window(self, rows: int, columns: int) -> Window:
        """The rectangle in a state of this size; what lies outside is cut off."""
        top, left, height, width = self.top, self.left, self.height, self.width
        if self.is_share:
            top, left = round(top * rows), round(left * columns)
            height, width = max(1, round(height * rows)), max(1, round(width * columns))
        top, left = min(int(top), rows - 1), min(int(left), columns - 1)
        return Window(top, left, min(int(height), rows - top), min(int(width), columns - left))


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """Where an entry acts. `mask` [B, H, W] is scaled to the state; `fits_mask` asks about the mask's rectangle alone.

    `fills` marks an entry that acts where the others of its conditioning leave room: 1 less the sum of their weights.
    """

    area: Area | None = None
    mask: Tensor | None = None
    strength: float | None = None
    mask_strength: float = 1.0
    fits_mask: bool | None = None
    fills: bool = False

    def window(self, x: Tensor) -> Window | None:
        """The part of a state [B, C, h, w] that is asked about; None for all of it."""
        rows, columns = x.shape[-2:]
        if self.mask is not None and self.fits_mask:
            return _box(self._drawn(x)).window(rows, columns)
        return self.area.window(rows, columns) if self.area is not None else None

    def weights(self, x: Tensor, window: Window | None) -> Tensor:
        """How much the estimate counts, place by place: [B or 1, 1, h, w] of the window."""
        strength = 1.0 if self.strength is None else self.strength
        whole = Window(0, 0, *x.shape[-2:])
        shown = window or whole
        if self.mask is not None:
            drawn = shown.of(self._drawn(x)[: x.shape[0]])[:, None] * self.mask_strength
            return drawn.repeat(x.shape[0] // len(drawn), 1, 1, 1) * strength
        rows, columns = torch.full((shown.height,), strength), torch.ones(shown.width)
        if window is not None:
            _fade(rows, window.top > 0, window.top + window.height < whole.height)
            _fade(columns, window.left > 0, window.left + window.width < whole.width)
        return (rows[:, None] * columns)[None, None].to(x.device, x.dtype)

    def _drawn(self, x: Tensor) -> Tensor:
        """The mask at the state's size."""
        assert self.mask is not None
        mask = self.mask.to(x.device, x.dtype).reshape(-1, 1, *self.mask.shape[-2:])
        if mask.shape[-2:] != x.shape[-2:]:
            mask = F.interpolate(mask, size=x.shape[-2:], mode="bilinear")
        return mask[:, 0]


def _box(masks: Tensor) -> Area:
    """The rectangle round what is not zero in masks [B, h, w], at least 8 places a side."""
    drawn = masks.abs().amax(dim=0) > 0
    if not drawn.any():
        return Area(SMALLEST_BOX, SMALLEST_BOX, 0, 0)
    sides = []
    for axis in (1, 0):
        places = drawn.any(dim=axis).nonzero()[:, 0]
        sides.append((int(places[0]), max(SMALLEST_BOX, int(places[-1] - places[0]) + 1)))
    (top, height), (left, width) = sides
    return Area(height, width, top, left)


def _fade(weights: Tensor, at_start: bool, at_end: bool) -> None:
    """Let the weights of one side rise from its edges that lie inside the picture."""
    width = min(FADE, len(weights) // 4)
    ramp = torch.arange(1, width + 1) / max(width, 1)
    if at_start:
        weights[:width] *= ramp
    if at_end and width:
        weights[-width:] *= ramp.flip(0)


def weighted_mean(x: Tensor, parts: Sequence[tuple[Tensor, Region, Window | None]]) -> Tensor:
    """The mean of estimates of windows of a state shaped like `x`, by their weights; zeros where none acts."""
    total, weight = torch.zeros_like(x), torch.full_like(x[:, :1], NOTHING)
    covered = torch.zeros_like(weight)
    for estimate, region, window in sorted(parts, key=lambda part: part[1].fills):
        shown = window or Window(0, 0, *x.shape[-2:])
        share = (1.0 - covered).clamp(min=0.0) if region.fills else region.weights(x, window)
        share = shown.of(share) if region.fills else share
        shown.of(total).add_(estimate * share)
        shown.of(weight).add_(share)
        if not region.fills:
            shown.of(covered).add_(share)
    return total / weight
