"""Compositing of two pictures with transparency by the rules of Porter and Duff (1984) and a few blend modes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, node
from sigmagraph.engine.sampling.resize import resized
from sigmagraph.nodes.images.masks import batched
from sigmagraph.nodes.support.types import Image, Mask

__all__ = ["NODES"]

SMALLEST_ALPHA = 1e-5  # below it a colour cannot be read back


@dataclass(frozen=True, slots=True)
class Layers:
    """Source over destination: premultiplied colours [B, H, W, C] and coverages [B, H, W, 1]."""

    s: Tensor
    d: Tensor
    sa: Tensor
    da: Tensor

    @property
    def union(self) -> Tensor:
        """Covered by either, taken as independent."""
        return self.sa + self.da - self.sa * self.da

    @property
    def apart(self) -> Tensor:
        """Both colours where only one covers."""
        return self.s * (1 - self.da) + self.d * (1 - self.sa)


Rule = Callable[[Layers], tuple[Tensor, Tensor]]


def _overlay(layer: Layers) -> Tensor:
    dark = 2 * layer.s * layer.d
    light = layer.sa * layer.da - 2 * (layer.da - layer.s) * (layer.sa - layer.d)
    return torch.where(2 * layer.d < layer.da, dark, light)


RULES: dict[str, Rule] = {
    "ADD": lambda o: ((o.s + o.d).clamp(0, 1), (o.sa + o.da).clamp(0, 1)),
    "CLEAR": lambda o: (torch.zeros_like(o.d), torch.zeros_like(o.da)),
    "DARKEN": lambda o: (o.apart + torch.minimum(o.s, o.d), o.union),
    "DST": lambda o: (o.d, o.da),
    "DST_ATOP": lambda o: (o.sa * o.d + (1 - o.da) * o.s, o.sa),
    "DST_IN": lambda o: (o.d * o.sa, o.da * o.sa),
    "DST_OUT": lambda o: (o.d * (1 - o.sa), o.da * (1 - o.sa)),
    "DST_OVER": lambda o: (o.d + o.s * (1 - o.da), o.da + (1 - o.da) * o.sa),
    "LIGHTEN": lambda o: (o.apart + torch.maximum(o.s, o.d), o.union),
    "MULTIPLY": lambda o: (o.s * o.d, o.sa * o.da),
    "OVERLAY": lambda o: (_overlay(o), o.union),
    "SCREEN": lambda o: (o.s + o.d - o.s * o.d, o.union),
    "SRC": lambda o: (o.s, o.sa),
    "SRC_ATOP": lambda o: (o.da * o.s + (1 - o.sa) * o.d, o.da),
    "SRC_IN": lambda o: (o.s * o.da, o.sa * o.da),
    "SRC_OUT": lambda o: (o.s * (1 - o.da), o.sa * (1 - o.da)),
    "SRC_OVER": lambda o: (o.s + o.d * (1 - o.sa), o.sa + (1 - o.sa) * o.da),
    "XOR": lambda o: (o.apart, o.sa * (1 - o.da) + (1 - o.sa) * o.da),
}


@node("PorterDuffImageComposite", category="mask/compositing", display_name="Porter-Duff Image Composite")
def porter_duff(
    *,
    source: Image,
    source_alpha: Mask,
    destination: Image,
    destination_alpha: Mask,
    mode: Annotated[str, Options(list(RULES), named=True)] = "DST",
) -> tuple[Image, Mask]:
    """Two pictures with transparency as one; in the masks 1 is transparent. All take the destination's size."""
    if source.shape[-1] != destination.shape[-1]:
        raise BadValue("source", f"{source.shape[-1]} channels", f"{destination.shape[-1]}, as the destination has")
    source_alpha, destination_alpha = batched(source_alpha), batched(destination_alpha)
    count = min(map(len, (source, source_alpha, destination, destination_alpha)))
    height, width = destination.shape[1:3]
    below, above = destination[:count], _fitted(source[:count].movedim(-1, 1), width, height).movedim(1, -1)
    sa, da = (
        1 - _fitted(mask[:count, None], width, height)[:, 0, ..., None] for mask in (source_alpha, destination_alpha)
    )
    colour, alpha = RULES[mode](Layers(above * sa, below * da, sa, da))
    colour = torch.where(alpha > SMALLEST_ALPHA, colour / alpha, torch.zeros_like(colour))
    return colour.clamp(0, 1), 1 - alpha[..., 0]


def _fitted(planes: Tensor, width: int, height: int) -> Tensor:
    return resized(planes, width, height, "bicubic", crop=True)


NODES = (porter_duff,)
