"""Colours of pictures changed point by point: inverted, blended, noisy, in another colour space."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Output, Range, Tooltip, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.images.batches import opaque
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES"]

Share = Annotated[float, Range(0.0, 1.0, step=0.01)]
NoiseSeed = Annotated[int, Range(0, 2**64 - 1, control_after_generate=True), Tooltip("Equal seeds give equal noise.")]


def _soft_light(below: Tensor, above: Tensor) -> Tensor:
    """Lighter or darker as `above` lies over or under a half (W3C Compositing 1, soft-light)."""
    curve = torch.where(below <= 0.25, ((16 * below - 12) * below + 4) * below, below.sqrt())
    darker = below - (1 - 2 * above) * below * (1 - below)
    return torch.where(above <= 0.5, darker, below + (2 * above - 1) * (curve - below))


BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normal": lambda below, above: above,
    "multiply": lambda below, above: below * above,
    "screen": lambda below, above: 1 - (1 - below) * (1 - above),
    "overlay": lambda below, above: torch.where(below <= 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above)),
    "soft_light": _soft_light,
    "difference": lambda below, above: below - above,
}
LUMA = (0.299, 0.587, 0.114)  # BT.601
BLUE, RED, MIDDLE = 0.564, 0.713, 0.5  # how its colour differences are scaled and shifted


@node("ImageInvert", category="image", display_name="Invert Image")
def image_invert(*, image: Image) -> Image:
    """The negative: 1 - image."""
    return 1.0 - image


@node("ImageBlend", category="image/postprocessing")
def image_blend(
    *,
    image1: Image,
    image2: Image,
    blend_factor: Annotated[float, Range(0.0, 1.0, step=0.01), Tooltip("0 is the first picture alone.")] = 0.5,
    blend_mode: Annotated[str, Options(list(BLENDS), named=True)],
) -> Image:
    """Blend the second picture over the first; it takes the first one's size."""
    below, above = opaque(image1, image2[..., : image1.shape[-1]])
    if len(below) != len(above) and 1 not in (len(below), len(above)):
        raise BadValue("image2", f"{len(above)} pictures", f"one picture, or {len(below)} as image1 has")
    if below.shape[1:] != above.shape[1:]:
        height, width = below.shape[1:3]
        above = resized(above.movedim(-1, 1), width, height, "bicubic", crop=True).movedim(1, -1)
    blended = BLENDS[blend_mode](below, above)
    return (below * (1 - blend_factor) + blended * blend_factor).clamp(0, 1)


@node("ImageAddNoise", category="image")
def image_add_noise(*, image: Image, seed: NoiseSeed = 0, strength: Share = 0.5) -> Image:
    """Add Gaussian noise of this standard deviation; what leaves 0..1 is cut off."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + strength * noise.to(image.device)).clamp(0.0, 1.0)


@node(
    "ImageRGBToYUV",
    category="image/batch",
    outputs=[Output("IMAGE", "Y"), Output("IMAGE", "U"), Output("IMAGE", "V")],
)
def image_rgb_to_yuv(*, image: Image) -> tuple[Image, Image, Image]:
    """Brightness and two colour differences, each as a grey picture."""
    if image.shape[-1] != 3:
        raise BadValue("image", f"{image.shape[-1]} channels", "3 channels; split transparency off first")
    red, green, blue = image.unbind(-1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    planes = (luma, (blue - luma) * BLUE + MIDDLE, (red - luma) * RED + MIDDLE)
    y, u, v = (plane[..., None].expand(image.shape) for plane in planes)
    return y, u, v


@node("ImageYUVToRGB", category="image/batch")
def image_yuv_to_rgb(*, Y: Image, U: Image, V: Image) -> Image:
    """A picture from its brightness and two colour differences."""
    try:
        luma, blue, red = torch.broadcast_tensors(*(plane.mean(dim=-1) for plane in (Y, U, V)))
    except RuntimeError as error:
        sizes = [list(plane.shape[:3]) for plane in (Y, U, V)]
        raise BadValue("Y, U, V", sizes, "three pictures of one size and number") from error
    red, blue = luma + (red - MIDDLE) / RED, luma + (blue - MIDDLE) / BLUE
    green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return torch.stack([red, green, blue], dim=-1).clamp(0.0, 1.0)


NODES = (image_invert, image_blend, image_add_noise, image_rgb_to_yuv, image_yuv_to_rgb)
