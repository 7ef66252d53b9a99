"""What can be done to the values of a latent, as values that travel on edges."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes.support.kernels import gaussian, sharpening

__all__ = ["ReinhardTonemap", "Sharpen"]


@dataclass(frozen=True, slots=True)
class ReinhardTonemap:
    """Lengths m become t (m/t) / (m/t + 1); t is `multiplier` times the mean and five deviations of an image's lengths.

    At multiplier 0 nothing is left; a single place has no deviation.
    """

    multiplier: float

    def __call__(self, latent: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(latent, dim=1, keepdim=True) + 1e-10
        axes = tuple(range(1, latent.ndim))
        spread = length.std(dim=axes, keepdim=True) if length[0].numel() > 1 else torch.zeros_like(length)
        top = (spread * 5 + length.mean(dim=axes, keepdim=True)) * self.multiplier
        if self.multiplier == 0:
            return torch.zeros_like(latent)
        share = length / top
        return latent / length * (share / (share + 1.0) * top)


@dataclass(frozen=True, slots=True)
class Sharpen:
    """Unit vectors of the places [B, C, h, w] less ten times `alpha` of their Gaussian blur's difference."""

    radius: int
    sigma: float
    alpha: float

    def __call__(self, latent: Tensor) -> Tensor:
        height, width = latent.shape[-2:]
        if self.radius >= min(height, width):
            raise BadValue("sharpen_radius", self.radius, f"less than the shorter side of {width} x {height} places")
        length: Tensor = torch.linalg.vector_norm(latent, dim=1, keepdim=True) + 1e-6
        kernel = sharpening(gaussian(2 * self.radius + 1, self.sigma), self.alpha).to(latent)
        padded = F.pad(latent / length, (self.radius,) * 4, mode="reflect")
        channels = latent.shape[1]
        return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels) * length
