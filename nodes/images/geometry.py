"""Pictures cut, turned, padded, laid over each other and side by side."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Range, Tooltip, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.images.batches import opaque
from sigmagraph.nodes.images.sizes import scaled
from sigmagraph.nodes.latents.composite import cycled, laid, weights_of
from sigmagraph.nodes.support.types import Image, Mask

__all__ = ["NODES"]

Side = Annotated[int, Range(1, 16384, step=1)]
Place = Annotated[int, Range(0, 16384, step=1)]
Border = Annotated[int, Range(0, 16384, step=8)]
TURNS = {"none": 0, "90 degrees": 1, "180 degrees": 2, "270 degrees": 3}
FLIPS = {"x-axis: vertically": 1, "y-axis: horizontally": 2}
COLOURS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}
MAX_PIXELS = 1 << 30  # of a result: more is a slip of the hand, not a wish


@node("ImageRotate", category="image/transform")
def image_rotate(*, image: Image, rotation: Annotated[str, Options(list(TURNS))]) -> Image:
    """Turn the picture clockwise."""
    return torch.rot90(image, k=TURNS[rotation], dims=(2, 1))


@node("ImageFlip", category="image/transform")
def image_flip(*, image: Image, flip_method: Annotated[str, Options(list(FLIPS))]) -> Image:
    """Mirror the picture."""
    return image.flip(FLIPS[flip_method])


@node("ImageCrop", category="image/transform", display_name="Image Crop")
def image_crop(*, image: Image, width: Side = 512, height: Side = 512, x: Place = 0, y: Place = 0) -> Image:
    """A part of the picture; a place beyond its edge means the last pixel."""
    top, left = min(y, image.shape[1] - 1), min(x, image.shape[2] - 1)
    return image[:, top : top + height, left : left + width]


@node("ResizeAndPadImage", category="image/transform")
def resize_and_pad(
    *,
    image: Image,
    target_width: Side = 512,
    target_height: Side = 512,
    padding_color: Annotated[str, Options(["white", "black"])],
    interpolation: Annotated[str, Options(["area", "bicubic", "nearest-exact", "bilinear", "lanczos"])],
) -> Image:
    """As large as fits into a size, in proportion, on the middle of a plain ground."""
    _bound(len(image), target_width, target_height)
    height, width = image.shape[1:3]
    factor = min(target_width / width, target_height / height)
    inner_width, inner_height = int(width * factor), int(height * factor)
    if min(inner_width, inner_height) < 1:
        raise BadValue("target size", f"{target_width} x {target_height}", "a size in which this picture has a pixel")
    inner = scaled(image, inner_width, inner_height, interpolation)
    ground = torch.full((len(image), target_height, target_width, image.shape[-1]), float(padding_color == "white"))
    top, left = (target_height - inner_height) // 2, (target_width - inner_width) // 2
    ground[:, top : top + inner_height, left : left + inner_width] = inner
    return ground


@node("ImageCompositeMasked", category="image")
def image_composite_masked(
    *,
    destination: Image,
    source: Image,
    x: Place = 0,
    y: Place = 0,
    resize_source: bool = False,
    mask: Mask | None = None,
) -> Image:
    """One picture laid over another at a place, as far as the mask says; the mask has the source's proportions."""
    below, above = opaque(destination, source[..., : destination.shape[-1]])
    height, width = below.shape[1:3]
    above = above.movedim(-1, 1)
    if resize_source:
        above = resized(above, width, height, "bilinear")
    weights = torch.ones(above.shape[-2:])
    if mask is not None:
        weights = weights_of(mask, above, len(below))
    return laid(below.movedim(-1, 1), cycled(above, len(below)), min(y, height), min(x, width), weights).movedim(1, -1)


@node("ImagePadForOutpaint", category="image", display_name="Pad Image for Outpainting")
def image_pad_for_outpaint(
    *,
    image: Image,
    left: Border = 0,
    top: Border = 0,
    right: Border = 0,
    bottom: Border = 0,
    feathering: Annotated[int, Range(0, 16384, step=1), Tooltip("Width of the soft edge, in pixels.")] = 40,
) -> tuple[Image, Mask]:
    """Grey borders round the picture, and the mask that says to fill them; it fades into the picture."""
    height, width = image.shape[1:3]
    _bound(len(image), width + left + right, height + top + bottom)
    padded = F.pad(image.movedim(-1, 1), (left, right, top, bottom), value=0.5).movedim(1, -1)
    inner = torch.zeros(height, width)
    if feathering > 0 and feathering * 2 < min(height, width):
        rows, columns = _distance(height, top, bottom), _distance(width, left, right)
        distance = torch.minimum(rows[:, None], columns[None])
        inner = ((feathering - distance) / feathering).clamp(min=0.0) ** 2
    return padded, F.pad(inner, (left, right, top, bottom), value=1.0)[None]


def _distance(size: int, before: int, after: int) -> Tensor:
    """Per place, how far the next edge is that has a border behind it; `size` or more where none has."""
    place = torch.arange(size, dtype=torch.float32)
    ways = [place if before else torch.full_like(place, size), size - place if after else torch.full_like(place, size)]
    return torch.minimum(*ways)


@node("ImageStitch", category="image/transform", display_name="Image Stitch")
def image_stitch(
    *,
    image1: Image,
    direction: Annotated[str, Options(["right", "down", "left", "up"])] = "right",
    match_image_size: bool = True,
    spacing_width: Annotated[int, Range(0, 1024, step=2)] = 0,
    spacing_color: Annotated[str, Options(list(COLOURS))] = "white",
    image2: Image | None = None,
) -> Image:
    """Two pictures side by side, a strip of colour between them; without a second one the first as it is.

    With `match_image_size` the second is scaled to the common side; without, the smaller one gets borders,
    black ones unless the colour is white. A shorter batch repeats its last picture.
    """
    if image2 is None:
        return image1
    along = 2 if direction in ("left", "right") else 1
    first, second = _equally_many(image1, image2)
    if match_image_size:
        second = _matched(second, first, along)
    else:
        side = max(first.shape[3 - along], second.shape[3 - along])
        first, second = (_centred(one, 3 - along, side, float(spacing_color == "white")) for one in (first, second))
    first, second = opaque(first, second)
    parts = [first, second] if direction in ("right", "down") else [second, first]
    if spacing_width:
        shape = list(first.shape)
        shape[along] = spacing_width + spacing_width % 2
        parts.insert(1, _filled(shape, spacing_color, first))
    return torch.cat(parts, dim=along)


def _equally_many(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    count = max(len(first), len(second))
    one, two = (torch.cat([batch, batch[-1:].expand(count - len(batch), -1, -1, -1)]) for batch in (first, second))
    return one, two


def _matched(image: Tensor, other: Tensor, along: int) -> Tensor:
    """`image` in its proportions, with the other one's side across the seam."""
    height, width = image.shape[1:3]
    if along == 2:
        size = int(other.shape[1] * (width / height)), other.shape[1]
    else:
        size = other.shape[2], int(other.shape[2] / (width / height))
    return scaled(image, *size, "lanczos")


def _centred(image: Tensor, across: int, side: int, value: float) -> Tensor:
    """The picture in the middle of a wider one, all of whose further channels have one value."""
    missing = side - image.shape[across]
    margins = (missing // 2, missing - missing // 2)
    return F.pad(image, (0, 0, *margins) if across == 2 else (0, 0, 0, 0, *margins), value=value)


def _filled(shape: list[int], colour: str, like: Tensor) -> Tensor:
    """A flat colour [B, H, W, C], opaque where there is transparency."""
    channels = (*COLOURS[colour], 1.0)[: shape[-1]]
    return torch.tensor(channels, dtype=like.dtype, device=like.device).expand(shape)


def _bound(batch: int, width: int, height: int) -> None:
    if batch * width * height > MAX_PIXELS:
        raise BadValue("image size", f"{batch} of {width} x {height}", f"at most {MAX_PIXELS:,} pixels at once")


NODES = (
    image_rotate,
    image_flip,
    image_crop,
    resize_and_pad,
    image_composite_masked,
    image_pad_for_outpaint,
    image_stitch,
)
