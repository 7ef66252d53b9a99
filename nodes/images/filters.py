"""Filters over a neighbourhood: blur, sharpen, morphology, edges; and fewer colours."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Range, node
from sigmagraph.nodes.support.edges import canny_edges
from sigmagraph.nodes.support.kernels import gaussian, sharpening
from sigmagraph.nodes.support.palettes import DITHERS, quantized
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES"]

Radius = Annotated[int, Range(1, 31, step=1)]
Threshold = Annotated[float, Range(0.01, 0.99, step=0.01)]
OPERATIONS = ("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat")


@node("ImageBlur", category="image/postprocessing")
def image_blur(
    *, image: Image, blur_radius: Radius = 1, sigma: Annotated[float, Range(0.1, 10.0, step=0.1)] = 1.0
) -> Image:
    """Blur by a Gaussian; sigma is in units of the radius."""
    return _filtered(image, gaussian(2 * blur_radius + 1, sigma))


@node("ImageSharpen", category="image/postprocessing")
def image_sharpen(
    *,
    image: Image,
    sharpen_radius: Radius = 1,
    sigma: Annotated[float, Range(0.1, 10.0, step=0.01)] = 1.0,
    alpha: Annotated[float, Range(0.0, 5.0, step=0.01)] = 1.0,
) -> Image:
    """Take ten times `alpha` of a Gaussian blur's difference away; sigma is in units of the radius."""
    return _filtered(image, sharpening(gaussian(2 * sharpen_radius + 1, sigma), alpha)).clamp(0, 1)


@node("ImageQuantize", category="image/postprocessing")
def image_quantize(
    *,
    image: Image,
    colors: Annotated[int, Range(1, 256, step=1)] = 256,
    dither: Annotated[str, Options(list(DITHERS), named=True)],
) -> Image:
    """Few colours, chosen per picture by median cut; between them error diffusion, or an ordered pattern (Bayer)."""
    if image.shape[-1] != 3:
        raise BadValue("image", f"{image.shape[-1]} channels", "3 channels; split transparency off first")
    return torch.stack([quantized(one, colors, dither) for one in image])


@node("Morphology", category="image/postprocessing", display_name="ImageMorphology")
def morphology(
    *,
    image: Image,
    operation: Annotated[str, Options(list(OPERATIONS), named=True)],
    kernel_size: Annotated[int, Range(3, 999, step=1)] = 3,
) -> Image:
    """Grow (dilate) or shrink (erode) what is bright, or both in turn, over a square; beyond the edge is nothing."""
    return _morphed(image.movedim(-1, 1), operation, kernel_size).movedim(1, -1)


@node("Canny", category="image/preprocessors")
def canny(*, image: Image, low_threshold: Threshold = 0.4, high_threshold: Threshold = 0.8) -> Image:
    """Edges as thin white lines (Canny 1986): above the high threshold, or above the low one and joined to those."""
    if low_threshold > high_threshold:
        raise BadValue("low_threshold", low_threshold, f"at most high_threshold, {high_threshold}")
    if image.shape[-1] not in (1, 3):
        raise BadValue("image", f"{image.shape[-1]} channels", "1 or 3 channels; split transparency off first")
    edges = canny_edges(image.movedim(-1, 1), low_threshold, high_threshold)
    return edges.expand(-1, 3, -1, -1).movedim(1, -1)


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """Every channel convolved with a kernel, the picture mirrored beyond its edges."""
    radius, (height, width), channels = len(kernel) // 2, image.shape[1:3], image.shape[-1]
    if radius >= min(height, width):
        raise BadValue("radius", radius, f"less than the shorter side of {width} x {height} pixels")
    planes = F.pad(image.movedim(-1, 1), (radius,) * 4, mode="reflect")
    return F.conv2d(planes, kernel.to(planes).expand(channels, 1, -1, -1), groups=channels).movedim(1, -1)


def _morphed(planes: Tensor, operation: str, size: int) -> Tensor:
    if operation == "dilate":
        return _dilated(planes, size)
    eroded = _eroded(planes, size)
    if operation == "erode":
        return eroded
    if operation == "gradient":
        return _dilated(planes, size) - eroded
    if operation in ("open", "top_hat"):
        opened = _dilated(eroded, size)
        return opened if operation == "open" else planes - opened
    closed = _eroded(_dilated(planes, size), size)
    return closed if operation == "close" else closed - planes


def _dilated(planes: Tensor, size: int) -> Tensor:
    """The largest value in a square round each place; one of even size reaches further down and right."""
    return _largest(planes, size, (size - 1) // 2, size // 2)


def _eroded(planes: Tensor, size: int) -> Tensor:
    """The smallest value in the square that is the dilation's turned round."""
    return -_largest(-planes, size, size // 2, (size - 1) // 2)


def _largest(planes: Tensor, size: int, before: int, after: int) -> Tensor:
    padded = F.pad(planes, (before, after, before, after), value=-torch.inf)
    return F.max_pool2d(F.max_pool2d(padded, (size, 1), 1), (1, size), 1)


NODES = (image_blur, image_sharpen, image_quantize, morphology, canny)
