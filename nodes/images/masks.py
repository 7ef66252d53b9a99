"""Masks [B, H, W] in 0..1: made, cut, grown, faded and put together."""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Range, Tooltip, node
from sigmagraph.nodes.support.types import Mask

__all__ = ["NODES", "batched"]

Side = Annotated[int, Range(1, 16384, step=1)]
Place = Annotated[int, Range(0, 16384, step=1)]
Fade = Annotated[int, Range(0, 16384, step=1)]
Share = Annotated[float, Range(0.0, 1.0, step=0.01)]
Rule = Callable[[Tensor, Tensor], Tensor]


def _bitwise(rule: Rule) -> Rule:
    """A rule of booleans, applied to masks rounded to 0 and 1."""
    return lambda below, above: rule(below.round().bool(), above.round().bool()).float()


RULES: dict[str, Rule] = {
    "multiply": torch.mul,
    "add": torch.add,
    "subtract": torch.sub,
    "and": _bitwise(torch.logical_and),
    "or": _bitwise(torch.logical_or),
    "xor": _bitwise(torch.logical_xor),
}


def batched(mask: Tensor) -> Tensor:
    """A mask [..., H, W] as [B, H, W]."""
    return mask.reshape(-1, *mask.shape[-2:])


@node("SolidMask", category="mask")
def solid_mask(*, value: Share = 1.0, width: Side = 512, height: Side = 512) -> Mask:
    """A mask of one value."""
    return torch.full((1, height, width), value)


@node("InvertMask", category="mask")
def invert_mask(*, mask: Mask) -> Mask:
    """What was in is out: 1 - mask."""
    return 1.0 - mask


@node("CropMask", category="mask")
def crop_mask(*, mask: Mask, x: Place = 0, y: Place = 0, width: Side = 512, height: Side = 512) -> Mask:
    """A part of the mask; what would lie outside is left out."""
    return batched(mask)[:, y : y + height, x : x + width].clone()


@node("MaskComposite", category="mask")
def mask_composite(
    *,
    destination: Mask,
    source: Mask,
    x: Place = 0,
    y: Place = 0,
    operation: Annotated[str, Options(list(RULES))],
) -> Mask:
    """One mask laid over another at a place, by a rule; `and`, `or` and `xor` round to 0 and 1 first."""
    below, above = batched(destination).clone(), batched(source)
    if len(above) not in (1, len(below)):
        raise BadValue("source", f"{len(above)} masks", f"one mask, or {len(below)} as the destination has")
    place = below[:, y : y + above.shape[1], x : x + above.shape[2]]
    place.copy_(RULES[operation](place, above[:, : place.shape[1], : place.shape[2]]))
    return below.clamp(0.0, 1.0)


@node("FeatherMask", category="mask")
def feather_mask(*, mask: Mask, left: Fade = 0, top: Fade = 0, right: Fade = 0, bottom: Fade = 0) -> Mask:
    """Fade the mask out towards its edges, over so many pixels."""
    height, width = mask.shape[-2:]
    rows = _ramp(height, top) * _ramp(height, bottom).flip(0)
    columns = _ramp(width, left) * _ramp(width, right).flip(0)
    return batched(mask) * columns.to(mask) * rows.to(mask)[:, None]


@node("GrowMask", category="mask", display_name="GrowMask")
def grow_mask(
    *,
    mask: Mask,
    expand: Annotated[int, Range(-16384, 16384, step=1), Tooltip("In pixels; negative shrinks.")] = 0,
    tapered_corners: Annotated[bool, Tooltip("Grow a point to a diamond instead of a square.")] = True,
) -> Mask:
    """Grow what is in the mask by so many pixels, or shrink it."""
    planes = batched(mask)[:, None] * (1 if expand >= 0 else -1)
    steps = min(abs(expand), sum(mask.shape[-2:]))  # by then every pixel has seen every other one
    for _ in range(steps):
        grown = _grown_by_one(planes, tapered_corners)
        if torch.equal(grown, planes):
            break
        planes = grown
    return (planes[:, 0] * (1 if expand >= 0 else -1)).float()


@node("ThresholdMask", category="mask")
def threshold_mask(*, mask: Mask, value: Share = 0.5) -> Mask:
    """1 where the mask is above a value, else 0."""
    return (mask > value).float()


def _ramp(size: int, width: int) -> Tensor:
    """Weights along one side that rise to 1 over `width` places."""
    width = min(width, size)
    weights = torch.ones(size)
    weights[:width] = torch.arange(1, width + 1) / max(width, 1)
    return weights


def _grown_by_one(planes: Tensor, is_tapered: bool) -> Tensor:
    """The largest value of each place and its neighbours: four of them, or all eight."""
    if not is_tapered:
        return F.max_pool2d(planes, 3, 1, 1)
    return torch.maximum(F.max_pool2d(planes, (3, 1), 1, (1, 0)), F.max_pool2d(planes, (1, 3), 1, (0, 1)))


NODES = (solid_mask, invert_mask, crop_mask, mask_composite, feather_mask, grow_mask, threshold_mask)
