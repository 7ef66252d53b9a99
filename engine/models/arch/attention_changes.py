"""Changes of a block's attention: what replaces `attend` in some blocks of a transformer, for guidance.

Queries, keys and values are those of joint attention, text first: q [B, T + N, heads, 64], k and v [B, L + N, ...], the
N image tokens row by row on a grid. T is L, or 0 where nobody reads the text's result. A block's attention over the
image alone (SD3.5 Medium's second one) has L = 0 and is changed alike.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sigmagraph.engine.models.arch.mmdit import HEAD_WIDTH, attend

__all__ = ["IdentityAttention", "NormalizedAttention", "SmoothedAttention"]

Grid = tuple[int, int]
TINY = 1e-12
WIDEST = 3  # of a Gaussian, in its deviations


@dataclass(frozen=True)
class IdentityAttention:
    """Image tokens see the text and themselves, no other image token (perturbed attention; Ahn 2024, arXiv:2403.17377).

    Of the map from image to image the identity remains: each row's softmax is over the text and one image token.
    """

    blocks: frozenset[int]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """[B, T + N, D]."""
        text = k.shape[1] - math.prod(grid)
        seen, own = q[:, q.shape[1] - math.prod(grid) :] * HEAD_WIDTH**-0.5, (k[:, text:], v[:, text:])
        to_text = torch.einsum("bnhd,blhd->bnhl", seen, k[:, :text])
        weights = torch.cat([to_text, (seen * own[0]).sum(-1, keepdim=True)], dim=-1).softmax(dim=-1)
        image = torch.einsum("bnhl,blhd->bnhd", weights[..., :text], v[:, :text]) + weights[..., text:] * own[1]
        return _behind_text(q, k, v, image.flatten(2))


@dataclass(frozen=True)
class SmoothedAttention:
    """Queries of image tokens are blurred over the picture by a Gaussian (SEG; Hong 2024, arXiv:2408.00760).

    `deviation` is in tokens, edges are reflected; at infinity every image token asks with the mean of all.
    """

    blocks: frozenset[int]
    deviation: float = math.inf

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """[B, T + N, D]."""
        text = q.shape[1] - math.prod(grid)
        down, across = (_blur(side, self.deviation).to(q) for side in grid)
        image = q[:, text:].unflatten(1, grid)
        blurred = torch.einsum("rs,ct,bsthd->brchd", down, across, image).flatten(1, 2)
        return attend(torch.cat([q[:, :text], blurred], dim=1), k, v)


@dataclass(frozen=True)
class NormalizedAttention:
    """Guidance between two texts inside attention (NAG; Chen 2025, arXiv:2505.21179), in one forward.

    The text is the negative's `negative_tokens`, then the positive's. Each text sees itself and the image. With P and
    N what the image tokens get from either, G = scale P - (scale - 1) N; G is shortened to at most `tau` times P's
    length, per token by the sum of absolute values; the result is alpha G + (1 - alpha) P.
    """

    blocks: frozenset[int]
    negative_tokens: int
    scale: float = 5.0
    tau: float = 2.5
    alpha: float = 0.25

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """[B, T + N, D]."""
        image, cut = math.prod(grid), self.negative_tokens
        if k.shape[1] == image:  # the image alone: no text, no guidance
            return attend(q, k, v)
        parted = cut if q.shape[1] > image else 0
        positive = attend(q[:, parted:], k[:, cut:], v[:, cut:])
        q, k, v = (torch.cat([one[:, :at], one[:, -image:]], dim=1) for one, at in ((q, parted), (k, cut), (v, cut)))
        negative = attend(q, k, v)
        guided = self.guided(positive[:, -image:], negative[:, -image:])
        return torch.cat([negative[:, :parted], positive[:, :-image], guided], dim=1)

    def guided(self, positive: Tensor, negative: Tensor) -> Tensor:
        """The rule itself, for features [..., D]."""
        guided = positive * self.scale - negative * (self.scale - 1)
        length, found = (one.abs().sum(-1, keepdim=True) for one in (positive, guided))
        guided = guided * (self.tau * length / found.clamp_min(TINY)).clamp(max=1.0)
        return guided * self.alpha + positive * (1 - self.alpha)


def _behind_text(q: Tensor, k: Tensor, v: Tensor, image: Tensor) -> Tensor:
    """The image's result behind that of the text, which sees everything."""
    text = q.shape[1] - image.shape[1]
    return image if text == 0 else torch.cat([attend(q[:, :text], k, v), image], dim=1)


@lru_cache(maxsize=64)
def _blur(side: int, deviation: float) -> Tensor:
    """[side, side]: a row blurred by a Gaussian, edges reflected without their last line; at infinity the mean."""
    if math.isinf(deviation):
        return torch.full((side, side), 1 / side)
    matrix, reach = torch.zeros(side, side), min(math.ceil(WIDEST * deviation), side - 1)
    weights = [math.exp(-0.5 * (step / deviation) ** 2) for step in range(-reach, reach + 1)] if deviation else [1.0]
    for place in range(side):
        for step, weight in zip(range(-reach, reach + 1), weights, strict=True):
            at = abs(place + step)
            matrix[place, at if at < side else 2 * (side - 1) - at] += weight / sum(weights)
    return matrix
