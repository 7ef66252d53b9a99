"""Pictures in batches: counted, put together, taken apart, repeated, dealt out anew."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, Hidden, Output, Range, Socket, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.support.types import BatchSize, Image

__all__ = ["NODES", "opaque"]


@node(
    "GetImageSize",
    category="image",
    display_name="Get Image Size",
    outputs=[Output("INT", "width"), Output("INT", "height"), Output("INT", "batch_size")],
)
def get_image_size(
    *, image: Image, unique_id: Annotated[str | None, Hidden("UNIQUE_ID")] = None
) -> tuple[int, int, int]:
    """Width, height, and how many pictures there are."""
    batch, height, width = image.shape[:3]
    return width, height, batch


@node("ImageBatch", category="image", display_name="Batch Images")
def image_batch(*, image1: Image, image2: Image) -> Image:
    """Two batches as one; the second takes the first one's size, its middle of those proportions."""
    first, second = opaque(image1, image2)
    if first.shape[1:3] != second.shape[1:3]:
        height, width = first.shape[1:3]
        second = resized(second.movedim(-1, 1), width, height, "bilinear", crop=True).movedim(1, -1)
    return torch.cat([first, second])


@node("RepeatImageBatch", category="image/batch")
def repeat_image_batch(*, image: Image, amount: BatchSize = 1) -> Image:
    """The batch several times over."""
    return image.repeat(amount, 1, 1, 1)


@node("ImageFromBatch", category="image/batch")
def image_from_batch(*, image: Image, batch_index: Annotated[int, Range(0, 4095)] = 0, length: BatchSize = 1) -> Image:
    """Some pictures of a batch; an index beyond its end means the last one."""
    first = min(batch_index, len(image) - 1)
    return image[first : first + length].clone()


@node(
    "RebatchImages",
    category="image/batch",
    display_name="Rebatch Images",
    outputs=[Output("IMAGE", is_list=True)],
    input_is_list=True,
)
def rebatch_images(
    *,
    images: Annotated[Sequence[Tensor], Socket("IMAGE")],
    batch_size: Annotated[Sequence[int], Socket("INT"), Extra({"default": 1}), Range(1, 4096)],
) -> list[Tensor]:
    """A list of pictures dealt out anew in batches of this size; a batch holds pictures of one size only."""
    singly = [one for batch in images for one in batch.split(1)]
    groups = [singly[start : start + batch_size[0]] for start in range(0, len(singly), batch_size[0])]
    for group in groups:
        if len({tuple(one.shape[1:]) for one in group}) > 1:
            sizes = ", ".join(f"{one.shape[2]} x {one.shape[1]} x {one.shape[3]}" for one in group[:4])
            raise BadValue("images", sizes, "pictures of one size in each batch, or batch_size 1")
    return [torch.cat(group) for group in groups]


def opaque(*images: Tensor) -> list[Tensor]:
    """The pictures with as many channels as the richest of them; transparency that is missing is none: alpha 1."""
    channels = max(image.shape[-1] for image in images)
    if {image.shape[-1] for image in images} - {channels, 3}:
        found = " and ".join(str(image.shape[-1]) for image in images)
        raise BadValue("image channels", found, "3 channels, or 4 with transparency")
    return [
        image if image.shape[-1] == channels else torch.cat([image, torch.ones_like(image[..., :1])], dim=-1)
        for image in images
    ]


NODES = (get_image_size, image_batch, repeat_image_batch, image_from_batch, rebatch_images)
