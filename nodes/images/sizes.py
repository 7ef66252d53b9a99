"""Pictures to another size."""

import math
from typing import Annotated

import numpy as np
import torch
from PIL.Image import Resampling, fromarray
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Optional, Options, Range, Tooltip, node
from sigmagraph.engine.sampling.resize import METHODS, middle, resized
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES", "scaled"]

IMAGE_METHODS = (*(method for method in METHODS if method != "bislerp"), "lanczos")
Method = Annotated[str, Options(list(IMAGE_METHODS))]
Side = Annotated[int, Range(0, 16384, step=1)]
Crop = Annotated[str, Options(["disabled", "center"])]
MAX_METHODS = ("area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic")  # as declared there
MEGAPIXEL = 1024 * 1024
MAX_SIDE = 16384


@node("ImageScale", category="image/upscaling", display_name="Upscale Image")
def image_scale(*, image: Image, upscale_method: Method, width: Side = 512, height: Side = 512, crop: Crop) -> Image:
    """To this size; a side of 0 follows the other one in proportion, both 0 leave the picture as it is."""
    old_height, old_width = image.shape[1:3]
    if not width and not height:
        return image
    new_width = width or max(1, round(old_width * height / old_height))
    new_height = height or max(1, round(old_height * width / old_width))
    return scaled(image, new_width, new_height, upscale_method, crop == "center")


@node("ImageScaleBy", category="image/upscaling", display_name="Upscale Image By")
def image_scale_by(
    *, image: Image, upscale_method: Method, scale_by: Annotated[float, Range(0.01, 8.0, step=0.01)] = 1.0
) -> Image:
    """Both sides times a factor."""
    return _proportional(image, scale_by, upscale_method)


@node("ImageScaleToTotalPixels", category="image/upscaling")
def image_scale_to_total_pixels(
    *,
    image: Image,
    upscale_method: Method,
    megapixels: Annotated[float, Range(0.01, 16.0, step=0.01)] = 1.0,
    resolution_steps: Annotated[int, Optional(), Range(1, 256), Tooltip("Both sides are multiples of it.")] = 1,
) -> Image:
    """To about this many pixels (a megapixel is 1024 x 1024), in proportion."""
    height, width = image.shape[1:3]
    factor = math.sqrt(megapixels * MEGAPIXEL / (width * height)) / resolution_steps
    new_width, new_height = (max(1, round(side * factor)) * resolution_steps for side in (width, height))
    return scaled(image, new_width, new_height, upscale_method)


@node("ImageScaleToMaxDimension", category="image/upscaling")
def image_scale_to_max_dimension(
    *, image: Image, upscale_method: Annotated[str, Options(list(MAX_METHODS))], largest_size: Side = 512
) -> Image:
    """In proportion, so that the longer side has this many pixels."""
    height, width = image.shape[1:3]
    new_width = largest_size if width >= height else round((width / height) * largest_size)
    new_height = largest_size if height >= width else round((height / width) * largest_size)
    if min(new_width, new_height) < 1:
        raise BadValue("largest_size", largest_size, f"a size in which {width} x {height} pixels keep one of each side")
    return scaled(image, new_width, new_height, upscale_method)


def _proportional(image: Tensor, factor: float, method: str) -> Tensor:
    height, width = (max(1, round(side * factor)) for side in image.shape[1:3])
    return scaled(image, width, height, method, crop=False)


def scaled(image: Tensor, width: int, height: int, method: str, crop: bool = False) -> Tensor:
    """Image [B, H, W, C] as [B, height, width, C]. Raises `BadValue` for a side beyond 16384 pixels."""
    if max(width, height) > MAX_SIDE:
        raise BadValue("image size", f"{width} x {height}", f"sides of at most {MAX_SIDE} pixels")
    planes = image.movedim(-1, 1)
    if method == "lanczos":
        parts = middle(planes, width / height) if crop else planes
        return torch.stack([_lanczos(part.movedim(0, -1), width, height) for part in parts]).to(image.device)
    return resized(planes, width, height, method, crop=crop).movedim(1, -1)


def _lanczos(image: Tensor, width: int, height: int) -> Tensor:
    """One picture [h, w, C] in 0..1 as [height, width, C], through 8 bits as in ComfyUI; alpha weighs colours."""
    levels = (image.clamp(0, 1) * 255).to("cpu", torch.uint8).squeeze(-1).numpy()
    scaled = np.array(fromarray(levels).resize((width, height), Resampling.LANCZOS))
    return torch.from_numpy(scaled.reshape(height, width, -1)).float() / 255


NODES = (image_scale, image_scale_by, image_scale_to_total_pixels, image_scale_to_max_dimension)
