"""The colours of a reference picture given to others."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from sigmagraph.engine.graph.node import DynamicCombo, Options, Range, Tooltip, input_of, node
from sigmagraph.nodes.support.colour_matching import METHODS, Move
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES"]

SOURCES = DynamicCombo(
    {
        "per_frame": [],
        "uniform": [],
        "target_frame": [input_of("target_index", Annotated[int, Range(0, 10000, step=1)], 0)],
    }
)


@node("ColorTransfer", category="image/postprocessing", display_name="Transfer Color")
def color_transfer(
    *,
    image_target: Annotated[Image, Tooltip("What is changed.")],
    image_ref: Annotated[Image, Tooltip("Whose colours it gets.")],
    method: Annotated[str, Options(list(METHODS), named=True)],
    source_stats: Annotated[Mapping[str, Any], SOURCES],
    strength: Annotated[float, Range(0.0, 10.0, step=0.01), Tooltip("1 is all the way, 0 none.")] = 1.0,
) -> Image:
    """Move colours to those of a reference: each picture for itself, or a whole batch in one and the same way."""
    if strength == 0:
        return image_target
    pixels, wanted = image_target[..., :3], image_ref[..., :3]
    moved = _moved(pixels, wanted, METHODS[method], source_stats, is_paired=method == "histogram")
    changed = (pixels + strength * (moved - pixels)).clamp(0.0, 1.0)
    return torch.cat([changed, image_target[..., 3:]], dim=-1)


def _moved(
    pixels: Tensor,
    wanted: Tensor,
    fit: Callable[[Tensor, Tensor], Move],
    stats: Mapping[str, Any],
    *,
    is_paired: bool,
) -> Tensor:
    kind = stats["source_stats"]
    if kind == "per_frame":
        last = len(wanted) - 1
        pairs = [wanted[min(at, last)] if is_paired else wanted for at in range(len(pixels))]
        return torch.stack([fit(frame, other)(frame) for frame, other in zip(pixels, pairs, strict=True)])
    frame = pixels if kind == "uniform" else pixels[min(int(stats["target_index"]), len(pixels) - 1)]
    return fit(frame, wanted)(pixels)


NODES = (color_transfer,)
