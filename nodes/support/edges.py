"""Canny's edge detector (Canny 1986, IEEE PAMI 8(6)) on tensors, with the constants of kornia's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["canny_edges"]

LUMA = (0.299, 0.587, 0.114)  # BT.601
EPSILON = 1e-6  # under the root of the magnitude
SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
# the neighbour in each eighth of a turn, from the right downwards: (row, column)
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
WEAK, STRONG = 0.5, 1.0


def canny_edges(planes: Tensor, low: float, high: float) -> Tensor:
    """Edges [B, 1, H, W], 0 or 1, of planes [B, 1 or 3, H, W]; thresholds are of the gradient's magnitude."""
    grey = planes
    if planes.shape[1] == 3:
        grey = sum(planes[:, index, None] * weight for index, weight in enumerate(LUMA))  # type: ignore[assignment]
    magnitude, direction = _gradient(_blurred(grey))
    thin = _thinned(magnitude, direction)
    marks = (thin > low) * 0.5 + (thin > high) * 0.5
    return _joined(marks.to(planes.dtype))


def _blurred(grey: Tensor) -> Tensor:
    """A Gaussian of sigma 1 over 5 x 5 places, mirrored beyond the edges."""
    place = torch.arange(5, dtype=grey.dtype) - 2
    kernel = torch.exp(-(place**2) / 2)
    kernel = (kernel / kernel.sum()).to(grey)
    padded = F.pad(grey, (2, 2, 2, 2), mode="reflect" if min(grey.shape[-2:]) > 2 else "replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])


def _gradient(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude, and direction in eighths of a turn, by Sobel's operator."""
    across = torch.tensor(SOBEL).to(grey)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx, dy = (F.conv2d(padded, kernel[None, None]) for kernel in (across, across.T))
    degrees = 180.0 * torch.atan2(dy, dx) / math.pi
    return torch.sqrt(dx * dx + dy * dy + EPSILON), torch.round(degrees / 45).long() % 8


def _thinned(magnitude: Tensor, direction: Tensor) -> Tensor:
    """The magnitude where it is larger than at both neighbours along the gradient, else 0."""
    around = _neighbours(magnitude)
    ahead, behind = (around.gather(1, (direction + turn) % 8) for turn in (0, 4))
    return magnitude * ((magnitude > ahead) & (magnitude > behind))


def _joined(marks: Tensor) -> Tensor:
    """Strong marks, and the weak ones that touch them, directly or through others."""
    strong, weak = marks == STRONG, marks == WEAK
    while True:
        reached = strong | (weak & _neighbours(strong.to(marks)).any(dim=1, keepdim=True))
        if torch.equal(reached, strong):
            return strong.to(marks)
        strong = reached


def _neighbours(planes: Tensor) -> Tensor:
    """The eight neighbours of each place, [B, 8, H, W]; beyond the edge they are 0."""
    height, width = planes.shape[-2:]
    padded = F.pad(planes, (1, 1, 1, 1))
    return torch.cat([padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in NEIGHBOURS], dim=1)
