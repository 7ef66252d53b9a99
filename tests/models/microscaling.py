"""Rounds matrices to the small forms of ComfyUI's files, by the definitions: what readers are held against."""

import torch
from torch import Tensor

GRID = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # e2m1, by its code


def in_mxfp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """float8 and the exponents of the powers of two that bring each 32 below 448."""
    blocks = values.unflatten(1, (-1, 32))
    exponents = torch.ceil(torch.log2(blocks.abs().amax(dim=2) / 448)).clamp(min=-126)
    small = (blocks / 2.0 ** exponents[..., None]).to(torch.float8_e4m3fn)
    return small.flatten(1), tiled((exponents + 127).to(torch.uint8)).view(torch.float8_e8m0fnu)


def in_nvfp4(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of e2m1, float8 scales of each 16, and the scale of all."""
    blocks, scale = values.unflatten(1, (-1, 16)), values.abs().amax() / (448 * 6)
    scales = (blocks.abs().amax(dim=2) / 6 / scale).to(torch.float8_e4m3fn)
    units = (blocks / (scales.float() * scale)[..., None]).flatten(1)
    codes = (units.abs()[..., None] - GRID).abs().argmin(dim=-1) + 8 * (units < 0)
    packed = (codes[:, ::2] * 16 + codes[:, 1::2]).to(torch.uint8)
    return packed, tiled(scales.view(torch.uint8)).view(torch.float8_e4m3fn), scale


def in_rotated_int8(values: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """int8 by row of the matrix whose groups of columns were turned by the Kronecker power of one of order 4."""
    four = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2
    turn = four
    while len(turn) < group:
        turn = torch.kron(turn, four)
    turned = (values.unflatten(1, (-1, group)) @ turn.T).flatten(1)
    scale = turned.abs().amax(dim=1, keepdim=True) / 127
    return (turned / scale).round().to(torch.int8), scale


def tiled(scales: Tensor) -> Tensor:
    """Bytes [rows, blocks] where cuBLAS wants them: each put at its place, one index for each."""
    rows, blocks = scales.shape
    padded = -(-rows // 128) * 128, -(-blocks // 4) * 4
    row, block = torch.meshgrid(torch.arange(rows), torch.arange(blocks), indexing="ij")
    tile = row // 128 * (padded[1] // 4) + block // 4
    placed = torch.zeros(padded[0] * padded[1], dtype=torch.uint8)
    placed[tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + block % 4] = scales
    return placed.view(padded)
