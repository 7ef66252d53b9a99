"""Numbers to blocks: the formats of GGUF that are written, and how far the result is from what went in.

The arithmetic is that of ggml's reference quantisers, met bit for bit; the tests hold it to the `gguf` package.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Shrink = Callable[[Tensor], Tensor]


def _inverse(scale: Tensor) -> Tensor:
    inverse: Tensor = torch.where(scale == 0, torch.zeros_like(scale), 1 / scale)
    return inverse


def _halves(*numbers: Tensor) -> list[Tensor]:
    """Each [n, 1] as the two bytes of a float16."""
    return [number.to(torch.float16).view(torch.uint8) for number in numbers]


def _in_nibbles(codes: Tensor) -> Tensor:
    """[n, 32] of four bits -> [n, 16]: the first half low, the second high."""
    return (codes[:, :16] & 15) | ((codes[:, 16:] & 15) << 4)


def _fifth_bits(codes: Tensor) -> Tensor:
    """[n, 32] -> [n, 4]: the fifth bit of each, the first code lowest."""
    powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=codes.device)
    bits: Tensor = (codes >> 4).unflatten(1, (4, 8)) * powers
    return bits.sum(dim=2).to(torch.uint8)


def _furthest(values: Tensor) -> Tensor:
    """The number furthest from 0 of each row; of two as far, the first. Extremes take a sixth of an argmax's time."""
    least, greatest = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    furthest = torch.where(-least > greatest, least, greatest)
    tied = (-least == greatest).flatten().nonzero().flatten()
    among = values[tied]
    furthest[tied] = among.gather(1, among.abs().argmax(dim=1, keepdim=True))
    return furthest


def _symmetric(values: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The scale that puts the number furthest from 0 at the lowest code, and the codes 0 to 2 `half` - 1."""
    scale = _furthest(values) / -half
    return scale, (values * _inverse(scale) + (half + 0.5)).trunc().clamp(0, 2 * half - 1).to(torch.uint8)


def _between(values: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, least value, and codes 0 to `most` between the least and the greatest."""
    least, greatest = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)  # aminmax takes thrice as long
    scale = (greatest - least) / most
    return scale, least, ((values - least) * _inverse(scale) + 0.5).trunc().clamp(0, most).to(torch.uint8)


def _q4_0(values: Tensor) -> Tensor:
    scale, codes = _symmetric(values, 8)
    return torch.cat([*_halves(scale), _in_nibbles(codes)], dim=1)


def _q4_1(values: Tensor) -> Tensor:
    scale, least, codes = _between(values, 15)
    return torch.cat([*_halves(scale, least), _in_nibbles(codes)], dim=1)


def _q5_0(values: Tensor) -> Tensor:
    scale, codes = _symmetric(values, 16)
    return torch.cat([*_halves(scale), _fifth_bits(codes), _in_nibbles(codes)], dim=1)


def _q5_1(values: Tensor) -> Tensor:
    scale, least, codes = _between(values, 31)
    return torch.cat([*_halves(scale, least), _fifth_bits(codes), _in_nibbles(codes)], dim=1)


def _q8_0(values: Tensor) -> Tensor:
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    codes = values * _inverse(scale)
    # halves away from zero, as C rounds; torch rounds them to even
    codes = torch.copysign((codes.abs() + 0.5).floor_(), codes)
    blocks = torch.empty(len(values), 34, dtype=torch.uint8)
    blocks[:, :2] = _halves(scale)[0]
    blocks[:, 2:] = codes.to(torch.int8).view(torch.uint8)
    return blocks


SHRINK: Mapping[str, Shrink] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0}
"""Blocks of 32 floats [n, 32] -> bytes [n, b], for every format that is written."""
