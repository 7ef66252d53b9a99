"""Kernels of convolutions."""

import torch
from torch import Tensor

__all__ = ["gaussian", "sharpening"]


def gaussian(size: int, sigma: float) -> Tensor:
    """A Gaussian over -1..1 in `size` x `size` places, of sum 1."""
    place = torch.linspace(-1, 1, size)
    distance = torch.sqrt(place[:, None] ** 2 + place[None] ** 2)
    kernel: Tensor = torch.exp(-(distance**2) / (2.0 * sigma * sigma))
    return kernel / kernel.sum()


def sharpening(blur: Tensor, alpha: float) -> Tensor:
    """Takes ten times `alpha` of a blur away and keeps the sum 1."""
    kernel, middle = blur * -(alpha * 10), len(blur) // 2
    kernel[middle, middle] -= kernel.sum() - 1.0
    return kernel
