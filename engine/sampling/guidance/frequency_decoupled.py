"""Frequency-decoupled guidance (Sadat 2025, arXiv:2506.19713): each band of the guidance has a scale of its own.

Guidance of low frequencies decides composition and colour and oversaturates; that of high frequencies sharpens. The
bands are those of a Laplacian pyramid: with S the picture blurred, halved, and brought back to its size, a band is
d - S d, and what is left, S d, is parted further. All bands and the rest add up to d.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates, has_uncond

KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@dataclass(frozen=True)
class FrequencyDecoupled:
    """C - U with its finest band times `high`, the coarsest rest times `low`, and even steps between.

    These are shares of the guidance scale. `levels` counts bands and rest, as far as the picture can be halved.
    """

    low: float = 0.5
    high: float = 1.0
    levels: int = 2

    def __call__(self, known: Estimates) -> Estimates:
        if not has_uncond(known) or (self.low, self.high) == (1.0, 1.0):
            return known
        parts = bands(known.cond - known.uncond, self.levels)
        rest = max(len(parts) - 1, 1)
        scales = [self.high + (self.low - self.high) * place / rest for place in range(len(parts))]
        changed = torch.stack([part * scale for part, scale in zip(parts, scales, strict=True)]).sum(0)
        return replace(known, cond=known.uncond + changed)


def bands(picture: Tensor, levels: int) -> list[Tensor]:
    """The bands of [B, C, H, W], each in the full size, finest first; their sum is the picture."""
    found, rest, place = [], picture, 1
    while place < levels and min(picture.shape[-2:]) >= 2 ** (place + 2):
        coarse = _smoothed(picture, place)
        found.append(rest - coarse)
        rest, place = coarse, place + 1
    return [*found, rest]


def _smoothed(picture: Tensor, times: int) -> Tensor:
    """The picture blurred and halved so many times, then brought back."""
    sizes, small = [], picture
    for _ in range(times):
        sizes.append(small.shape[-2:])
        half = [-(-side // 2) for side in small.shape[-2:]]
        small = F.interpolate(_blurred(small), size=half, mode="bilinear", align_corners=False)
    for size in reversed(sizes):
        small = _blurred(F.interpolate(small, size=size, mode="bilinear", align_corners=False))
    return small


def _blurred(picture: Tensor) -> Tensor:
    """A binomial blur over five places each way, edges reflected."""
    kernel = torch.tensor(KERNEL, dtype=picture.dtype, device=picture.device)
    flat = F.pad(picture.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :])
    return flat.reshape(picture.shape)
