"""Pictures painted in the page, and subjects cut out by their masks."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from PIL import ImageColor
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, FileIn, Output, Range, Socket, Tooltip, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.images.masks import batched, grow_mask
from sigmagraph.nodes.images.sizes import scaled
from sigmagraph.nodes.support.pictures import read_picture
from sigmagraph.nodes.support.types import Engine, Image, Mask

__all__ = ["NODES"]

Canvas = Annotated[int, Range(64, 4096, step=64)]
OutSide = Annotated[int, Range(64, 4096, step=8)]
Colour = Annotated[str, Socket("COLOR"), Extra({"default": "#000000"}), Tooltip("As #rrggbb.")]
PAINTED = FileIn("input", composed={"": ()})  # nothing was painted


@node("Painter", category="image", display_name="Painter")
def painter(
    *,
    mask: Annotated[str, PAINTED, Extra({"widgetType": "PAINTER"}), Tooltip("What was painted, as a file.")] = "",
    width: Annotated[Canvas, Tooltip("Without a picture: of the canvas.")] = 512,
    height: Annotated[Canvas, Tooltip("Without a picture: of the canvas.")] = 512,
    bg_color: Colour = "#000000",
    image: Image | None = None,
    services: Engine,
) -> tuple[Image, Mask]:
    """Paint over a picture or a plain canvas; the mask is 1 where there is paint."""
    ground = _plain(bg_color, height, width)[None] if image is None else image[..., :3]
    height, width = ground.shape[1:3]
    if not mask:
        return ground, torch.zeros(1, height, width)
    paint, clear = read_picture(services.path("input", mask))
    share = 1.0 - F.interpolate(clear[:1, None], size=paint.shape[1:3])  # a file without transparency is all paint
    layer = torch.cat([paint[:1].movedim(-1, 1) * share, share], dim=1)
    layer = resized(layer, width, height, "bilinear")  # colours weighed by their share, so edges keep their colour
    colours, share = layer[:, :3].movedim(1, -1), layer[:, 3]
    return ground * (1.0 - share[..., None]) + colours, share


@node(
    "ImageCropToMask",
    category="image/transform",
    display_name="Crop Image to Mask",
    outputs=[Output("IMAGE", "images")],
)
def image_crop_to_mask(
    *,
    images: Image,
    masks: Mask,
    width: OutSide = 1024,
    height: OutSide = 1024,
    pad_factor: Annotated[float, Range(1.0, 2.0, step=0.01), Tooltip("How much wider than the subject.")] = 1.0,
    grow_mask: Annotated[int, Range(-32, 32, step=1), Tooltip("In pixels; negative shrinks.")] = 0,
    background: Colour = "#000000",
) -> Image:
    """The subject of each picture in the middle of a plain ground; one that lies at the edges is turned inside out."""
    planes = batched(masks)
    if len(planes) not in (1, len(images)):
        raise BadValue("masks", f"{len(planes)} masks", f"one mask, or {len(images)} as there are pictures")
    planes = resized(planes[:, None].float(), images.shape[2], images.shape[1], "bilinear")[:, 0]
    ground = _plain(background, 1, 1)[0, 0].to(images)
    made = []
    for place, image in enumerate(images[..., :3]):
        mask = _grown(_foreground(planes[place % len(planes)]), grow_mask)
        shown = _framed((image - ground) * mask[..., None], mask, width / height, pad_factor)[None]
        made.append(scaled(shown, width, height, "area" if shown.shape[2] > width else "bilinear"))
    return (ground + torch.cat(made)).clamp(0.0, 1.0)


def _plain(colour: Any, height: int, width: int) -> Tensor:
    """A flat colour [H, W, 3]."""
    try:
        rgb = ImageColor.getrgb(colour)[:3]
    except (ValueError, AttributeError, TypeError) as error:
        raise BadValue("colour", colour, "a colour as #rrggbb") from error
    return (torch.tensor(rgb) / 255.0).expand(height, width, 3)


def _foreground(mask: Tensor) -> Tensor:
    """The mask, inside out where its edges are in it and its middle is not; all of it where nothing is in it."""
    inside = mask > 0.5
    if not bool(inside.any()):
        return torch.ones_like(mask)
    height, width = mask.shape
    edges = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]]).float().mean()
    down, across = height * 3 // 8, width * 3 // 8
    middle = inside[down : height - down, across : width - across].float().mean()
    is_inverted = edges > 0.5 > middle and not bool(inside.all())
    return 1.0 - mask if is_inverted else mask


def _grown(mask: Tensor, pixels: int) -> Tensor:
    grown: Any = grow_mask(mask=mask, expand=pixels, tapered_corners=False)
    return grown[0]  # type: ignore[no-any-return]  # a node called as a function


def _framed(image: Tensor, mask: Tensor, ratio: float, margin: float) -> Tensor:
    """The part of a picture [H, W, C] round what is in the mask, of these proportions; zeros beyond its edges."""
    rows, columns = ((mask > 0.5).any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        rows, columns = list(range(mask.shape[0])), list(range(mask.shape[1]))
    tall, wide = (rows[-1] - rows[0] + 1) * margin, (columns[-1] - columns[0] + 1) * margin
    tall, wide = max(tall, wide / ratio), max(wide, tall * ratio)
    high, across = max(1, round(tall)), max(1, round(wide))
    top = round((rows[0] + rows[-1] + 1 - high) / 2)
    left = round((columns[0] + columns[-1] + 1 - across) / 2)
    bottom, right = top + high - image.shape[0], left + across - image.shape[1]
    return F.pad(image, (0, 0, -left, right, -top, bottom))


NODES = (painter, image_crop_to_mask)
