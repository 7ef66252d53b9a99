"""Latents joined and cut along an axis, and operations that change their values."""

from typing import Annotated

import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Range, node
from sigmagraph.nodes.latents.composite import cycled
from sigmagraph.nodes.support.latent_operations import ReinhardTonemap, Sharpen
from sigmagraph.nodes.support.types import Latent, LatentOperation, LatentValue

__all__ = ["NODES"]

AXES = {"x": -1, "y": -2, "t": -3}
SIDES = ("x", "-x", "y", "-y", "t", "-t")
MAX = 16384


@node("LatentConcat", category="latent/advanced")
def latent_concat(
    *, samples1: Latent, samples2: Latent, dim: Annotated[str, Options(list(SIDES), named=True)]
) -> Latent:
    """Two latents side by side; with a minus the second comes first. Where there are no frames, t is the channels."""
    first, second = samples1.samples, cycled(samples2.samples, len(samples1.samples))
    axis = AXES[dim[-1]] % first.ndim
    alike = [[size for place, size in enumerate(latent.shape) if place != axis] for latent in (first, second)]
    if first.ndim != second.ndim or alike[0] != alike[1]:
        raise BadValue("samples2", list(second.shape), f"{list(first.shape)} but for axis {dim[-1]}, as samples1 has")
    return samples1.with_samples(torch.cat([second, first] if dim.startswith("-") else [first, second], dim=axis))


@node("LatentCut", category="latent/advanced")
def latent_cut(
    *,
    samples: Latent,
    dim: Annotated[str, Options(list(AXES), named=True)],
    index: Annotated[int, Range(-MAX, MAX, step=1)] = 0,
    amount: Annotated[int, Range(1, MAX, step=1)] = 1,
) -> Latent:
    """A part along one axis, in latent places; a negative index counts from the end."""
    whole = samples.samples
    size = whole.shape[AXES[dim]]
    start = min(index, size - 1) if index >= 0 else max(size + index, 0)
    return samples.with_samples(whole.narrow(AXES[dim], start, min(amount, size - start)).clone())


@node("LatentCutToBatch", category="latent/advanced")
def latent_cut_to_batch(
    *,
    samples: Latent,
    dim: Annotated[str, Options(["t", "x", "y"], named=True)],
    slice_size: Annotated[int, Range(1, MAX, step=1)] = 1,
) -> Latent:
    """Slices along one axis as a batch; what is left over at its end is dropped. Without frames, t changes nothing."""
    whole = samples.samples
    axis = whole.ndim + AXES[dim]
    if axis < 2:
        return samples
    size = min(slice_size, whole.shape[axis])
    count = whole.shape[axis] // size
    slices = whole.narrow(axis, 0, count * size).unflatten(axis, (count, size))
    return LatentValue(slices.movedim(axis, 1).flatten(0, 1).contiguous())


@node("LatentApplyOperation", category="latent/advanced/operations", experimental=True)
def latent_apply_operation(*, samples: Latent, operation: LatentOperation) -> Latent:
    """Change a latent by an operation."""
    return samples.with_samples(operation(samples.samples))


@node("LatentOperationTonemapReinhard", category="latent/advanced/operations", experimental=True)
def latent_operation_tonemap_reinhard(
    *, multiplier: Annotated[float, Range(0.0, 100.0, step=0.01)] = 1.0
) -> LatentOperation:
    """Bounds the length of each place's vector by Reinhard's curve (Reinhard 2002)."""
    return ReinhardTonemap(multiplier)


@node("LatentOperationSharpen", category="latent/advanced/operations", experimental=True)
def latent_operation_sharpen(
    *,
    sharpen_radius: Annotated[int, Range(1, 31, step=1)] = 9,
    sigma: Annotated[float, Range(0.1, 10.0, step=0.1)] = 1.0,
    alpha: Annotated[float, Range(0.0, 5.0, step=0.01)] = 0.1,
) -> LatentOperation:
    """Sharpens the directions of each place's vector and leaves its length."""
    return Sharpen(sharpen_radius, sigma, alpha)


NODES = (
    latent_concat,
    latent_cut,
    latent_cut_to_batch,
    latent_apply_operation,
    latent_operation_tonemap_reinhard,
    latent_operation_sharpen,
)
