"""Pictures and masks to another size by any of several measures, and batches of what was apart."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import (
    Autogrow,
    DynamicCombo,
    Extra,
    MatchType,
    Options,
    Output,
    Range,
    Socket,
    Tooltip,
    input_of,
    node,
)
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.images.batches import image_batch
from sigmagraph.nodes.images.masks import batched
from sigmagraph.nodes.images.sizes import MEGAPIXEL, scaled
from sigmagraph.nodes.latents.edits import latent_batch
from sigmagraph.nodes.support.types import Image, Latent, LatentValue, Mask

__all__ = ["NODES"]

IMAGE_OR_MASK = MatchType("input_type", "IMAGE,MASK")
METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
Side = Annotated[int, Range(0, 16384, step=1)]
Crop = Annotated[str, Options(["disabled", "center"], named=True)]
WIDTH, HEIGHT = input_of("width", Side, 512), input_of("height", Side, 512)
CROP = input_of("crop", Crop, "center")
MEASURES = DynamicCombo(
    {
        "scale by multiplier": [input_of("multiplier", Annotated[float, Range(0.01, 8.0, step=0.01)], 1.0)],
        "scale dimensions": [WIDTH, HEIGHT, CROP],
        "scale longer dimension": [input_of("longer_size", Side, 512)],
        "scale shorter dimension": [input_of("shorter_size", Side, 512)],
        "scale width": [WIDTH],
        "scale height": [HEIGHT],
        "scale total pixels": [input_of("megapixels", Annotated[float, Range(0.01, 16.0, step=0.01)], 1.0)],
        "match size": [input_of("match", Annotated[Any, Socket("IMAGE,MASK")]), CROP],
        "scale to multiple": [input_of("multiple", Annotated[int, Range(1, 16384, step=1)], 8)],
    }
)
Box = Annotated[dict[str, int], Socket("BOUNDING_BOX")]
Corner = Annotated[int, Range(0, 16384)]
Length = Annotated[int, Range(1, 16384)]


@node(
    "ResizeImageMaskNode",
    category="transform",
    display_name="Resize Image/Mask",
    outputs=[Output("IMAGE,MASK", "resized", match=IMAGE_OR_MASK)],
)
def resize_image_mask(
    *,
    input: Annotated[Tensor, IMAGE_OR_MASK],
    resize_type: Annotated[dict[str, Any], MEASURES],
    scale_method: Annotated[str, Options(list(METHODS), named=True)] = "area",
) -> Tensor:
    """A picture or a mask to a size given by a factor, its sides, one of them, its pixels, or another picture."""
    image = _as_image(input)
    width, height = _measured(image, resize_type)
    if min(width, height) < 1:
        return input
    if resize_type["resize_type"] == "scale to multiple":
        result = _covered(image, width, height, scale_method)
    else:
        result = scaled(image, width, height, scale_method, crop=resize_type.get("crop") == "center")
    return result if input.ndim == 4 else result[..., 0]


def _measured(image: Tensor, measure: dict[str, Any]) -> tuple[int, int]:
    """Width and height that are asked for; 0 where a side of 0 asks for nothing."""
    height, width = image.shape[1:3]
    match measure["resize_type"]:
        case "scale by multiplier":
            factor = measure["multiplier"]
        case "scale total pixels":
            factor = math.sqrt(measure["megapixels"] * MEGAPIXEL / (width * height))
        case "scale longer dimension":
            factor = measure["longer_size"] / max(width, height)
        case "scale shorter dimension":
            factor = measure["shorter_size"] / min(width, height)
        case "scale width":
            factor = measure["width"] / width
        case "scale height":
            factor = measure["height"] / height
        case "match size":
            other = _as_image(measure["match"])
            return other.shape[2], other.shape[1]
        case "scale to multiple":
            multiple = measure["multiple"]
            return width // multiple * multiple, height // multiple * multiple
        case _:
            return _sides(width, height, measure["width"], measure["height"])
    return (max(1, round(width * factor)), max(1, round(height * factor))) if factor else (0, 0)


def _sides(width: int, height: int, new_width: int, new_height: int) -> tuple[int, int]:
    """A side of 0 follows the other one in proportion."""
    if not new_width and not new_height:
        return 0, 0
    return (
        new_width or max(1, round(width * new_height / height)),
        new_height or max(1, round(height * new_width / width)),
    )


def _covered(image: Tensor, width: int, height: int, method: str) -> Tensor:
    """Scaled as little as covers the size, and the middle of that."""
    factor = max(width / image.shape[2], height / image.shape[1])
    wide, high = max(width, math.ceil(image.shape[2] * factor)), max(height, math.ceil(image.shape[1] * factor))
    whole = image if (high, wide) == tuple(image.shape[1:3]) else scaled(image, wide, high, method)
    top, left = (high - height) // 2, (wide - width) // 2
    return whole[:, top : top + height, left : left + width]


def _as_image(value: Tensor) -> Tensor:
    """A mask as pictures of one channel."""
    return value if value.ndim == 4 else batched(value)[..., None]


@node("BatchImagesNode", category="image", display_name="Batch Images")
def batch_images(
    *, images: Annotated[dict[str, Tensor], Autogrow.numbered(input_of("image", Image), "image", least=2, most=50)]
) -> Image:
    """Pictures as one batch; all take the first one's size."""
    first, *others = images.values()
    for other in others:
        first = image_batch(image1=first, image2=other)
    return first


@node("BatchMasksNode", category="mask", display_name="Batch Masks")
def batch_masks(
    *, masks: Annotated[dict[str, Tensor], Autogrow.numbered(input_of("mask", Mask), "mask", least=2, most=50)]
) -> Mask:
    """Masks as one batch; all take the first one's size."""
    planes = [batched(mask)[:, None] for mask in masks.values()]
    height, width = planes[0].shape[-2:]
    return torch.cat([resized(plane, width, height, "bilinear", crop=True) for plane in planes])[:, 0]


@node("BatchLatentsNode", category="latent", display_name="Batch Latents")
def batch_latents(
    *,
    latents: Annotated[
        dict[str, LatentValue], Autogrow.numbered(input_of("latent", Latent), "latent", least=2, most=50)
    ],
) -> Latent:
    """Latents as one batch; all take the first one's size."""
    first, *others = latents.values()
    for other in others:
        first = latent_batch(samples1=first, samples2=other)
    return first


@node("PrimitiveBoundingBox", category="utils/primitive", display_name="Bounding Box", outputs=["BOUNDING_BOX"])
def bounding_box(*, x: Corner = 0, y: Corner = 0, width: Length = 512, height: Length = 512) -> Box:
    """A rectangle in pixels, from its upper left corner."""
    return {"x": x, "y": y, "width": width, "height": height}


@node("ImageCropV2", category="image/transform", display_name="Crop Image")
def crop_to_box(
    *,
    image: Image,
    crop_region: Annotated[
        dict[str, int], Socket("BOUNDING_BOX"), Extra({"default": {"x": 0, "y": 0, "width": 512, "height": 512}})
    ],
) -> Image:
    """A rectangle of a picture; what would lie outside is left out."""
    try:
        x, y, width, height = (int(crop_region[side]) for side in ("x", "y", "width", "height"))
    except (TypeError, KeyError, ValueError) as error:
        raise BadValue("crop_region", crop_region, "a rectangle with x, y, width and height") from error
    if min(x, y) < 0 or min(width, height) < 1:
        raise BadValue("crop_region", crop_region, "a place from 0, and at least one pixel a side")
    top, left = min(y, image.shape[1] - 1), min(x, image.shape[2] - 1)
    return image[:, top : top + height, left : left + width]


@node(
    "ResizeImagesByLongerEdge",
    category="dataset/image",
    display_name="Resize Images by Longer Edge",
    deprecated=True,
    outputs=[Output("IMAGE", "images")],
)
def resize_images_by_longer_edge(
    *, images: Image, longer_edge: Annotated[int, Range(1, 8192), Tooltip("In pixels.")] = 1024
) -> Image:
    """In proportion, so that the longer side has this many pixels."""
    height, width = images.shape[1:3]
    new_width, new_height = (max(1, int(side * longer_edge / max(width, height))) for side in (width, height))
    return scaled(images, new_width, new_height, "lanczos")


@node(
    "SplitImageToTileList",
    category="image/batch",
    display_name="Split Image into List of Tiles",
    outputs=[Output("IMAGE", is_list=True)],
)
def split_to_tiles(
    *,
    image: Image,
    tile_width: Annotated[int, Range(64, 1 << 20)] = 1024,
    tile_height: Annotated[int, Range(64, 1 << 20)] = 1024,
    overlap: Annotated[int, Range(0, 4096), Tooltip("Pixels that neighbours share.")] = 128,
) -> list[Tensor]:
    """Overlapping parts of one size, row by row; the last of a row or column ends with the picture."""
    height, width = image.shape[1:3]
    down, across = min(tile_height, height), min(tile_width, width)
    return [
        image[:, top : top + down, left : left + across]
        for top in _starts(height, down, overlap)
        for left in _starts(width, across, overlap)
    ]


def _starts(size: int, tile: int, overlap: int) -> Sequence[int]:
    step = tile - overlap
    if size <= tile:
        return [0]
    if step < 1:
        raise BadValue("overlap", overlap, f"less than the tile's side, {tile}")
    return [*range(0, size - tile, step), size - tile]


NODES = (
    resize_image_mask,
    batch_images,
    batch_masks,
    batch_latents,
    bounding_box,
    crop_to_box,
    resize_images_by_longer_edge,
    split_to_tiles,
)
