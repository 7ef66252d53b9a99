"""Latents laid over each other, and lists of latents dealt out in batches."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, Output, Range, Socket, Tooltip, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.support.types import Latent, LatentValue, Mask

__all__ = ["NODES", "cycled", "laid"]

PIXELS = 8  # of a latent's place
Place = Annotated[int, Range(0, 16384, step=8), Tooltip("In pixels.")]


@node("LatentComposite", category="latent", display_name="Latent Composite")
def latent_composite(
    *,
    samples_to: Latent,
    samples_from: Latent,
    x: Place = 0,
    y: Place = 0,
    feather: Annotated[int, Range(0, 16384, step=8), Tooltip("Width of the soft edge, in pixels.")] = 0,
) -> Latent:
    """One latent laid over another at a place; edges that lie inside fade over `feather` pixels."""
    below, above = samples_to.samples, _over(samples_from.samples, samples_to.samples, "samples_from")
    top, left, width = y // PIXELS, x // PIXELS, feather // PIXELS
    rows, columns = (
        _faded(visible, width, start > 0, start + size < whole)
        for visible, width, start, size, whole in (
            (min(above.shape[2], below.shape[2] - top), width, top, above.shape[2], below.shape[2]),
            (min(above.shape[3], below.shape[3] - left), width, left, above.shape[3], below.shape[3]),
        )
    )
    return samples_to.with_samples(laid(below, above, top, left, rows[:, None] * columns))


@node("LatentCompositeMasked", category="latent")
def latent_composite_masked(
    *,
    destination: Latent,
    source: Latent,
    x: Place = 0,
    y: Place = 0,
    resize_source: bool = False,
    mask: Mask | None = None,
) -> Latent:
    """One latent laid over another at a place, as far as the mask says; the mask has the source's proportions."""
    below, above = destination.samples, source.samples
    if resize_source:
        above = resized(above, below.shape[3], below.shape[2], "bilinear")
    above = _over(above, below, "source")
    weights = torch.ones(above.shape[-2:])
    if mask is not None:
        weights = weights_of(mask, above, len(below))
    return destination.with_samples(laid(below, above, y // PIXELS, x // PIXELS, weights))


@node(
    "RebatchLatents",
    category="latent/batch",
    display_name="Rebatch Latents",
    outputs=[Output("LATENT", is_list=True)],
    input_is_list=True,
)
def rebatch_latents(
    *,
    latents: Annotated[Sequence[LatentValue], Socket("LATENT")],
    batch_size: Annotated[Sequence[int], Socket("INT"), Extra({"default": 1}), Range(1, 4096)],
) -> list[LatentValue]:
    """A list of latents dealt out anew in batches of this size; latents of different sizes do not share one."""
    found, first = [], 0
    for latent in latents:
        count = len(latent.samples)
        found.append(replace(latent, batch_index=latent.batch_index or tuple(range(first, first + count))))
        first += count
    runs = (_joined(list(run)) for _, run in groupby(found, key=lambda latent: latent.samples.shape[1:]))
    return [part for run in runs for part in _dealt(run, batch_size[0])]


def _over(above: Tensor, below: Tensor, name: str) -> Tensor:
    """`above` for every image below."""
    if above.shape[1] != below.shape[1]:
        raise BadValue(name, f"{above.shape[1]} channels", f"{below.shape[1]} channels, as the latent below has")
    return cycled(above, len(below))


def weights_of(mask: Tensor, above: Tensor, count: int) -> Tensor:
    """A mask of any rank, [..., H, W], as weights [count, 1, h, w] of what is laid over `count` images."""
    drawn = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=above.shape[-2:], mode="bilinear")
    return cycled(drawn, count)


def laid(below: Tensor, above: Tensor, top: int, left: int, weights: Tensor) -> Tensor:
    """`above` over `below` at a place, weighed by `weights` [..., h, w]; what hangs over the edge is cut off."""
    height, width = (max(below.shape[axis] - start, 0) for axis, start in ((2, top), (3, left)))
    above, weights = above[..., :height, :width], weights[..., :height, :width]
    result = below.clone()
    place = result[..., top : top + above.shape[2], left : left + above.shape[3]]
    place.copy_(above * weights + place * (1.0 - weights))
    return result


def _faded(size: int, width: int, at_start: bool, at_end: bool) -> Tensor:
    """Weights along one side: 1, rising over `width` places from an edge that lies inside the picture."""
    weights = torch.ones(max(size, 0))
    ramp = (torch.arange(min(width, len(weights))) + 1) / max(width, 1)
    if at_start:
        weights[: len(ramp)] *= ramp
    if at_end and len(ramp):
        weights[-len(ramp) :] *= ramp.flip(0)
    return weights


def _joined(latents: Sequence[LatentValue]) -> LatentValue:
    """Latents of one size as one batch; where any has a mask, the others are made anew everywhere."""
    samples = torch.cat([latent.samples for latent in latents])
    places = tuple(place for latent in latents for place in latent.batch_index or ())
    if all(latent.noise_mask is None for latent in latents):
        return LatentValue(samples, None, places)
    size = [side * PIXELS for side in samples.shape[-2:]]
    masks = []
    for latent in latents:
        mask = torch.ones(1, *size) if latent.noise_mask is None else latent.noise_mask
        masks.append(cycled(F.interpolate(mask[:, None], size=size, mode="bilinear")[:, 0], len(latent.samples)))
    return LatentValue(samples, torch.cat(masks), places)


def _dealt(latent: LatentValue, size: int) -> list[LatentValue]:
    """One batch in parts of at most `size`; a mask that says "everywhere" is dropped."""
    parts = []
    for start in range(0, len(latent.samples), size):
        chosen = slice(start, start + size)
        mask = None if latent.noise_mask is None else latent.noise_mask[chosen]
        kept = None if mask is None or bool((mask == 1).all()) else mask
        parts.append(LatentValue(latent.samples[chosen], kept, (latent.batch_index or ())[chosen]))
    return parts


def cycled(rows: Tensor, count: int) -> Tensor:
    """The rows in turn, until there are `count`."""
    if not len(rows):
        raise BadValue("batch", "nothing", "a batch of at least one")
    return rows[torch.arange(count) % len(rows)]


NODES = (latent_composite, latent_composite_masked, rebatch_latents)
