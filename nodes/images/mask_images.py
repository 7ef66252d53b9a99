"""Between masks and pictures: channels as masks, masks as pictures, transparency apart and together."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import FileIn, Options, Range, UiResult, node
from sigmagraph.nodes.images.image import write_preview
from sigmagraph.nodes.images.masks import batched
from sigmagraph.nodes.support.pictures import read_channel
from sigmagraph.nodes.support.provenance import LockInput
from sigmagraph.nodes.support.types import Document, Engine, Image, Mask, PictureInfo

__all__ = ["NODES"]

CHANNELS = {"red": 0, "green": 1, "blue": 2, "alpha": 3}
Colour = Annotated[int, Range(0, 0xFFFFFF, step=1, display="color")]


@node("MaskToImage", category="mask", display_name="Convert Mask to Image")
def mask_to_image(*, mask: Mask) -> Image:
    """The mask as a grey picture."""
    return _grey(mask)


@node("ImageToMask", category="mask", display_name="Convert Image to Mask")
def image_to_mask(*, image: Image, channel: Annotated[str, Options(list(CHANNELS))]) -> Mask:
    """One channel of a picture as a mask."""
    index = CHANNELS[channel]
    if index >= image.shape[-1]:
        raise BadValue("channel", channel, f"one of the {image.shape[-1]} channels that this picture has")
    return image[..., index].clone()


@node("ImageColorToMask", category="mask")
def image_color_to_mask(*, image: Image, color: Colour = 0) -> Mask:
    """1 where the picture, in 8 bits, has exactly this colour."""
    levels = (image.clamp(0, 1.0) * 255.0).round().to(torch.int)
    packed = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return (packed == color).float()


@node("LoadImageMask", category="mask", display_name="Load Image (as Mask)")
def load_image_mask(
    *,
    image: Annotated[str, FileIn("input", upload="image")],
    channel: Annotated[str, Options(["alpha", "red", "green", "blue"])],
    services: Engine,
) -> Mask:
    """One channel of a picture file as a mask; of its transparency, 1 is transparent."""
    values = read_channel(services.path("input", image), CHANNELS[channel])[None]
    return 1.0 - values if channel == "alpha" else values


@node("MaskPreview", category="mask", output_node=True)
def mask_preview(
    *, mask: Mask, prompt: Document, extra_pnginfo: PictureInfo, services: Engine, lock: LockInput = None
) -> UiResult:
    """Save the masks as grey pictures to the folder for temporary files, to look at."""
    return write_preview(_grey(mask), prompt, extra_pnginfo, services, lock)


@node("JoinImageWithAlpha", category="mask/compositing", display_name="Join Image with Alpha")
def join_image_with_alpha(*, image: Image, alpha: Mask) -> Image:
    """Pictures with transparency: 1 in the mask is transparent. As many as there are of both."""
    masks = F.interpolate(batched(alpha)[:, None].to(image), size=image.shape[1:3], mode="bilinear")
    count = min(len(image), len(masks))
    return torch.cat([image[:count, ..., :3], 1.0 - masks[:count].movedim(1, -1)], dim=-1)


@node("SplitImageWithAlpha", category="mask/compositing", display_name="Split Image with Alpha")
def split_image_with_alpha(*, image: Image) -> tuple[Image, Mask]:
    """The colours, and the transparency as a mask; 1 is transparent."""
    alpha = image[..., 3] if image.shape[-1] > 3 else torch.ones_like(image[..., 0])
    return image[..., :3].clone(), 1.0 - alpha


def _grey(mask: Tensor) -> Tensor:
    """Pictures [B, H, W, 3]."""
    return batched(mask)[..., None].expand(-1, -1, -1, 3)


NODES = (
    mask_to_image,
    image_to_mask,
    image_color_to_mask,
    load_image_mask,
    mask_preview,
    join_image_with_alpha,
    split_image_with_alpha,
)
