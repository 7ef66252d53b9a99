"""Pictures and latents to another size."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["METHODS", "middle", "resized"]

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")
PARALLEL = 1e-5  # vectors closer to one line than this are not turned


def resized(samples: Tensor, width: int, height: int, method: str, *, crop: bool = False) -> Tensor:
    """Samples [B, C, h, w] as [B, C, height, width]; with `crop` the middle of the right proportions is taken first."""
    if crop:
        samples = middle(samples, width / height)
    if samples.shape[-2:] == (height, width):
        return samples
    if method == "bislerp":
        return _spherical(_spherical(samples, width, 3), height, 2)
    return F.interpolate(samples, size=(height, width), mode=method)


def middle(samples: Tensor, ratio: float) -> Tensor:
    """The largest middle part of samples [B, C, h, w] whose width is about `ratio` times its height."""
    height, width = samples.shape[-2:]
    left = round((width - height * ratio) / 2) if width / height > ratio else 0
    top = round((height - width / ratio) / 2) if width / height < ratio else 0
    left, top = min(left, (width - 1) // 2), min(top, (height - 1) // 2)
    return samples[..., top : height - top, left : width - left]


def _spherical(samples: Tensor, size: int, dim: int) -> Tensor:
    """Along one axis, between neighbours: directions turn evenly, lengths change evenly (Shoemake 1985)."""
    old = samples.shape[dim]
    at = ((torch.arange(size, device=samples.device) + 0.5) * (old / size) - 0.5).clamp(0, old - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=old - 1)
    share = (at - low).reshape([-1 if axis == dim else 1 for axis in range(4)])
    first, second = (samples.float().index_select(dim, index) for index in (low, high))
    return _turned(first, second, share).to(samples.dtype)


def _turned(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    lengths = [torch.linalg.vector_norm(latent, dim=1, keepdim=True) for latent in (first, second)]
    one, two = (torch.nan_to_num(latent / length) for latent, length in zip((first, second), lengths, strict=True))
    cosine = (one * two).sum(dim=1, keepdim=True)
    angle = cosine.clamp(-1, 1).acos()
    turned = (((1 - share) * angle).sin() * one + (share * angle).sin() * two) / angle.sin()
    turned = turned * (lengths[0] * (1 - share) + lengths[1] * share)
    straight = first * (1 - share) + second * share
    return torch.where(cosine > 1 - PARALLEL, first, torch.where(cosine < PARALLEL - 1, straight, turned))
