"""Matrices in blocks of few bits and their scales: mxfp8 and nvfp4 as ComfyUI's files hold them, to float32.

mxfp8: float8 e4m3, a power of two for every 32 of a row (OCP Microscaling Formats v1.0). nvfp4: two e2m1 a byte, the
first in the upper half, a float8 e4m3 for every 16, a float32 for all. Rows of scales are padded to whole tiles and lie
in cuBLAS' order (block scaling factors). Torch alone, so a block grows on whatever device it lies. Knows no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

TILE_ROWS, TILE_BLOCKS = 128, 4
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
MANTISSA_BITS = 23  # of float32: a byte above them is its exponent
BLOCK = {"mxfp8": 32, "nvfp4": 16}


@dataclass(frozen=True, slots=True)
class Microscaled:
    """Grows [weight, scales of blocks(, scale of all)] to float32: what a stored matrix is combined by."""

    form: Literal["mxfp8", "nvfp4"]

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        values = _pairs(parts[0]) if self.form == "nvfp4" else parts[0].float()
        rows, columns = values.shape
        blocks = untiled(parts[1], rows, columns // BLOCK[self.form])
        scales = blocks.view(torch.float8_e4m3fn).float() * parts[2] if self.form == "nvfp4" else _powers(blocks)
        return values.view(rows, -1, BLOCK[self.form]).mul_(scales[..., None]).view(rows, columns)

    def shape_of(self, parts: Sequence[Sequence[int]]) -> tuple[int, int]:
        """The shape that parts of these shapes grow to. Raises `ValueError` where they do not belong together."""
        if len(parts[0]) != 2:
            raise ValueError("the weight is not a matrix")
        rows, columns = parts[0][0], parts[0][1] * (2 if self.form == "nvfp4" else 1)
        if not rows or not columns or columns % BLOCK[self.form]:
            raise ValueError(f"its rows are not whole blocks of {BLOCK[self.form]}")
        expected = _tiles(rows, TILE_ROWS) * TILE_ROWS * _tiles(columns // BLOCK[self.form], TILE_BLOCKS) * TILE_BLOCKS
        if (found := torch.Size(parts[1]).numel()) != expected:
            raise ValueError(f"it has {found} scales, and takes {expected}")
        if len(parts) == 3 and torch.Size(parts[2]).numel() != 1:
            raise ValueError("its scale of all is not one number")
        return rows, columns


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turns a matrix back that was rotated before it was rounded: each group of a row by a Hadamard matrix.

    `group` is a power of 4; the matrix, its own inverse, is the Kronecker power of the one of order 4 with -1 on the
    antidiagonal.
    """

    group: int

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        turned: Tensor = parts[0].unflatten(1, (-1, self.group)) @ hadamard(self.group, parts[0].device)
        return turned.flatten(1)


def untiled(scales: Tensor, rows: int, blocks: int) -> Tensor:
    """Scales in tiles of 128 rows and 4 blocks, as bytes [rows, blocks].

    In a tile, that of row r and block b lies at byte 16 (r mod 32) + 4 (r div 32) + b.
    """
    tiles = scales.contiguous().view(torch.uint8).view(-1, _tiles(blocks, TILE_BLOCKS), 32, 4, TILE_BLOCKS)
    return tiles.permute(0, 3, 2, 1, 4).reshape(-1, tiles.shape[1] * TILE_BLOCKS)[:rows, :blocks].contiguous()


def _tiles(count: int, size: int) -> int:
    return -(-count // size)


def _powers(exponents: Tensor) -> Tensor:
    """2 ** (e - 127); 0 for the smallest, as the exponent bits of float32 have it."""
    return (exponents.int() << MANTISSA_BITS).view(torch.float32)


def _pairs(packed: Tensor) -> Tensor:
    """Bytes [rows, n] -> the two numbers of each, [rows, 2 n] float32."""
    return _table(packed.device)[packed.int()].view(torch.float32)


@cache
def _table(device: torch.device) -> Tensor:
    """For every byte its two numbers, in one word of 64 bits."""
    values, codes = torch.tensor(E2M1), torch.arange(256)
    return torch.stack([values[codes >> 4], values[codes & 15]], dim=1).view(torch.int64).flatten().to(device)


@cache
def hadamard(size: int, device: torch.device) -> Tensor:
    """The symmetric orthogonal matrix of +-1 / sqrt(size), for a power of 4. Raises `ValueError` for another size."""
    if size < 4 or size & (size - 1) or size.bit_length() % 2 == 0:
        raise ValueError(f"groups of {size} are not a power of 4")
    four = made = torch.ones(4, 4) - 2.0 * torch.eye(4).flip(1)
    while len(made) < size:
        made = torch.kron(made, four)
    made /= size**0.5
    return made.to(device)
