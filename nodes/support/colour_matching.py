"""Colours of one picture moved to those of another: by mean and spread, by covariance, by histograms.

Pictures are [..., 3] in 0..1. Statistics are of CIE L*a*b* under D65 (IEC 61966-2-1 for sRGB, CIE 15 for the rest).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["METHODS", "Move", "from_lab", "to_lab"]

Move = Callable[[Tensor], Tensor]
"""Pixels [..., 3] to pixels."""
Fit = Callable[[Tensor, Tensor], Move]
TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
TO_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
DARK = 6 / 29  # below, the cube root is a line
TINY = 1e-8


def to_lab(pixels: Tensor) -> Tensor:
    """SRGB to L*, a*, b*."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)
    to_xyz = pixels.new_tensor(TO_XYZ)
    relative = linear @ (to_xyz / to_xyz.sum(1, keepdim=True)).T  # white is 1, 1, 1
    curved = torch.where(relative > DARK**3, relative.clamp(min=TINY) ** (1 / 3), relative / (3 * DARK**2) + 4 / 29)
    return curved @ pixels.new_tensor(TO_LAB).T - pixels.new_tensor((16.0, 0.0, 0.0))


def from_lab(lab: Tensor) -> Tensor:
    """Back to sRGB; colours that a screen does not have are cut off."""
    green = (lab[..., 0] + 16) / 116
    curved = torch.stack([green + lab[..., 1] / 500, green, green - lab[..., 2] / 200], dim=-1)
    relative = torch.where(curved > DARK, curved**3, 3 * DARK**2 * (curved - 4 / 29))
    to_xyz = lab.new_tensor(TO_XYZ)
    linear = (relative @ torch.linalg.inv(to_xyz / to_xyz.sum(1, keepdim=True)).T).clamp(0.0, 1.0)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=TINY) ** (1 / 2.4) - 0.055)


def reinhard(source: Tensor, reference: Tensor) -> Move:
    """Mean and deviation of each channel (Reinhard 2001, Color Transfer between Images), in L*a*b*."""
    (mean, spread), (wanted, width) = (_moments(to_lab(pixels)) for pixels in (source, reference))
    factor = width / spread.clamp(min=TINY)
    return lambda pixels: from_lab((to_lab(pixels) - mean) * factor + wanted)


def monge_kantorovich(source: Tensor, reference: Tensor) -> Move:
    """The linear map with least displacement between two Gaussians (Pitie 2007), in L*a*b*."""
    first, second = (to_lab(pixels).reshape(-1, 3).double() for pixels in (source, reference))
    root = _root(_covariance(first))
    back = torch.linalg.inv(root)
    change = back @ _root(root @ _covariance(second) @ root) @ back
    mean, wanted = first.mean(0), second.mean(0)
    return lambda pixels: from_lab(((to_lab(pixels).double() - mean) @ change.T + wanted).to(pixels.dtype))


def histogram(source: Tensor, reference: Tensor) -> Move:
    """Each channel's distribution: a level becomes the one that has the same share of the reference's pixels below."""
    sorted_ = [(source[..., at].flatten().sort().values, reference[..., at].flatten().sort().values) for at in range(3)]
    return lambda pixels: torch.stack([_quantile(pixels[..., at], *pair) for at, pair in enumerate(sorted_)], dim=-1)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    flat = values.reshape(-1, 3)
    return flat.mean(0), flat.std(0, correction=0)


def _covariance(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    return centred.T @ centred / len(values) + TINY * torch.eye(3, dtype=values.dtype, device=values.device)


def _root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix without negative eigenvalues."""
    levels, turn = torch.linalg.eigh(matrix)
    root: Tensor = turn @ torch.diag(levels.clamp(min=0.0).sqrt()) @ turn.T
    return root


def _quantile(values: Tensor, source: Tensor, reference: Tensor) -> Tensor:
    """Values by their place in a sorted source, equal ones in the middle of theirs; in between, lines."""
    values = values.contiguous()
    first, behind = (torch.searchsorted(source, values, right=is_right) for is_right in (False, True))
    share = ((first + behind - 1).double() / 2 / max(len(source) - 1, 1)).clamp(0.0, 1.0)
    place = share * (len(reference) - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=len(reference) - 1)
    return torch.lerp(reference[low].double(), reference[high].double(), place - low).to(values.dtype)


METHODS: Mapping[str, Fit] = {"reinhard_lab": reinhard, "mkl_lab": monge_kantorovich, "histogram": histogram}
