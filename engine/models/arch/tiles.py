"""A picture cut into overlapping tiles and put together again, as ComfyUI's tiled nodes do it: three passes, averaged.

Normalisation and attention see one tile alone, so the result is near the whole picture's, not equal to it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiling:
    """Side and overlap of a tile, in positions of what is cut."""

    side: int
    overlap: int

    @property
    def passes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the tiles of each pass: squares, and two kinds of long ones across each other."""
        return (self.side, self.side), (self.side // 2, self.side * 2), (self.side * 2, self.side // 2)


def blended(run: Run, x: Tensor, tiling: Tiling, scale: float) -> Tensor:
    """`run` over tiles of `x` [B, C, H, W]; results are `scale` times as large. Float32.

    Where one tile covers everything, that pass is a plain run.
    """
    total = _pass(run, x, tiling.passes[0], tiling.overlap, scale)
    for size in tiling.passes[1:]:
        total += _pass(run, x, size, tiling.overlap, scale)
    return total / len(tiling.passes)


def _pass(run: Run, x: Tensor, size: tuple[int, int], overlap: int, scale: float) -> Tensor:
    height, width = x.shape[-2:]
    if height <= size[0] and width <= size[1]:
        return run(x).float()
    total = weights = torch.zeros(())
    for top, rows in _spans(height, size[0], overlap):
        for left, columns in _spans(width, size[1], overlap):
            tile = run(x[..., top : top + rows, left : left + columns]).float()
            if total.ndim == 0:
                sides = round(height * scale), round(width * scale)
                total = tile.new_zeros(*tile.shape[:2], *sides)
                weights = tile.new_zeros(sides)
            ramp = round(overlap * scale)
            mask = _feather(tile.shape[-2], ramp, tile.device)[:, None] * _feather(tile.shape[-1], ramp, tile.device)
            at = (*_place(top, tile.shape[-2], scale), *_place(left, tile.shape[-1], scale))
            total[..., at[0] : at[1], at[2] : at[3]] += tile * mask
            weights[at[0] : at[1], at[2] : at[3]] += mask
    return total / weights


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Where tiles begin, every `side - overlap`, and how long they are: the last may be short."""
    if length <= side:
        return [(0, length)]
    starts = (max(0, min(length - overlap, start)) for start in range(0, length - overlap, side - overlap))
    return [(start, min(side, length - start)) for start in starts]


def _place(start: int, length: int, scale: float) -> tuple[int, int]:
    first = round(start * scale)
    return first, first + length


def _feather(length: int, ramp: int, device: torch.device) -> Tensor:
    """1 inside; at both ends a rise over `ramp` positions."""
    weights = torch.ones(length, device=device)
    for i in range(min(ramp, length)):
        weights[i] *= (i + 1) / ramp
        weights[length - 1 - i] *= (i + 1) / ramp
    return weights
