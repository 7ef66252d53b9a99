"""The number formats of GGUF files: blocks of small integers and their scales, to float32 and back.

Names, block sizes and arithmetic are ggml's, in the order of operations of the `gguf` package, whose float32 results
are met bit for bit. Torch alone, so a block grows on whatever device it lies. Knows no file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1 << 18  # elements that are worked on at once: they stay in the processor's cache
SUPER = 256  # elements of a block of the K kinds
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

Blocks = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of storing numbers: `size` elements in `bytes_` bytes. `grow` makes [n, size] floats of [n, bytes]."""

    name: str
    size: int
    bytes_: int
    grow: Blocks


@dataclass(frozen=True, slots=True)
class Dequantise:
    """Grows blocks [rows, bytes] to the float32 tensor of a shape: what a stored tensor is combined by."""

    format: Format
    shape: tuple[int, ...]

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        return grown(self.format, parts[0].reshape(-1, self.format.bytes_)).reshape(self.shape)

    def rows(self, stored: Tensor) -> Tensor:
        """Some rows [..., bytes] of a matrix -> [..., columns]."""
        flat = grown(self.format, stored.reshape(-1, self.format.bytes_))
        return flat.reshape(*stored.shape[:-1], self.shape[-1])


def grown(kind: Format, blocks: Tensor) -> Tensor:
    """Blocks [n, bytes] -> [n, size] float32, a piece at a time."""
    if blocks.device.type != "cpu" or len(blocks) * kind.size <= CHUNK:
        return kind.grow(blocks)
    values = torch.empty(len(blocks), kind.size)
    step = CHUNK // kind.size
    for start in range(0, len(blocks), step):
        values[start : start + step] = kind.grow(blocks[start : start + step])
    return values


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at a byte of every block: [n, 1] float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _shifted(codes: Tensor, *shifts: int) -> Tensor:
    """Bytes [n, groups, k] -> [n, groups, shifts, k], each shifted right by each number."""
    by = torch.tensor(shifts, dtype=torch.uint8, device=codes.device)
    return codes[:, :, None] >> by[:, None]


def _nibbles(codes: Tensor) -> Tensor:
    """[n, k] -> [n, 2 k]: every low half, then every high half."""
    return torch.cat([codes & 15, codes >> 4], dim=1)


def _bits(packed: Tensor) -> Tensor:
    """[n, 4] -> [n, 32]: the bits of a little-endian word."""
    by = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> by) & 1).flatten(1)


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).float() + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 6:]) | (_bits(blocks[:, 2:6]) << 4)
    return _half(blocks, 0) * (codes.float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[:, 8:]) | (_bits(blocks[:, 4:8]) << 4)
    return _half(blocks, 0) * codes.float() + _half(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float() * _half(blocks, 0)


def _q2_k(blocks: Tensor) -> Tensor:
    """16 scales and minima of 4 bits each, 64 bytes of four codes, two halves."""
    scales, codes = blocks[:, :16], blocks[:, 16:80]
    scale = _half(blocks, 80) * (scales & 15).float()
    least = _half(blocks, 82) * (scales >> 4).float()
    spread = (_shifted(codes.unflatten(1, (2, 32)), 0, 2, 4, 6) & 3).reshape(-1, 16, 16).float()
    return (scale[:, :, None] * spread - least[:, :, None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    """A mask of high bits, 64 bytes of four low codes, 16 scales of 6 bits in 12 bytes, a half."""
    high, low, packed = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    scales = _nibbles(packed[:, :8]) | ((_shifted(packed[:, None, 8:], 0, 2, 4, 6) & 3).flatten(1) << 4)
    scale = _half(blocks, 108) * (scales.float() - 32)
    two = (_shifted(low.unflatten(1, (2, 32)), 0, 2, 4, 6) & 3).reshape(-1, 16, 16)
    # the third bit counts downwards: four less where it is not set
    third = (_shifted(high[:, None], *range(8)) & 1).reshape(-1, 16, 16)
    codes = (two | (third << 2)).float() - 4
    return (scale[:, :, None] * codes).flatten(1)


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes -> 8 scales and 8 minima of 6 bits: [n, 8] each."""
    first, second, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, (mixed & 15) | ((first >> 2) & 48)], dim=1)
    minima = torch.cat([second & 63, (mixed >> 4) | ((second >> 2) & 48)], dim=1)
    return scales.float(), minima.float()


def _with_minima(blocks: Tensor, codes: Tensor) -> Tensor:
    """Codes [n, 8, 32] by the scales and less the minima that begin the blocks of Q4_K and Q5_K."""
    scales, minima = _six_bits(blocks[:, 4:16])
    scale, least = _half(blocks, 0) * scales, _half(blocks, 2) * minima
    return (scale[:, :, None] * codes.float() - least[:, :, None]).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    return _with_minima(blocks, (_shifted(blocks[:, 16:].unflatten(1, (4, 32)), 0, 4) & 15).flatten(1, 2))


def _q5_k(blocks: Tensor) -> Tensor:
    low = (_shifted(blocks[:, 48:].unflatten(1, (4, 32)), 0, 4) & 15).flatten(1, 2)
    high = (_shifted(blocks[:, None, 16:48], *range(8)) & 1).flatten(1, 2)
    return _with_minima(blocks, low | (high << 4))


def _q6_k(blocks: Tensor) -> Tensor:
    """128 bytes of two low codes, 64 bytes of four high ones, 16 scales of 8 bits, a half."""
    low = (_shifted(blocks[:, :128].unflatten(1, (2, 64)), 0, 4) & 15).reshape(-1, 8, 32)
    high = (_shifted(blocks[:, 128:192].unflatten(1, (2, 32)), 0, 2, 4, 6) & 3).reshape(-1, 8, 32)
    codes = (low | (high << 4)).reshape(-1, 16, 16).float() - 32
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8).float()
    return (scale[:, :, None] * codes).flatten(1)


def _looked_up(codes: Tensor) -> Tensor:
    table = torch.tensor(IQ4_VALUES, dtype=torch.float32, device=codes.device)
    return table[codes.int()]


def _iq4_nl(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _looked_up(_nibbles(blocks[:, 2:]))


def _iq4_xs(blocks: Tensor) -> Tensor:
    """A half, 8 scales of 6 bits (high bits in 2 bytes, low ones in 4), 128 bytes of two codes."""
    by = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=blocks.device)
    high = ((blocks[:, 2:4, None] >> by) & 3).flatten(1)
    low = torch.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], dim=2).flatten(1)
    scale = _half(blocks, 0) * ((low | (high << 4)).float() - 32)
    codes = (_shifted(blocks[:, 8:].unflatten(1, (8, 16)), 0, 4) & 15).flatten(2)
    return (scale[:, :, None] * _looked_up(codes)).flatten(1)


FORMATS: Mapping[int, Format] = {
    2: Format("Q4_0", 32, 18, _q4_0),
    3: Format("Q4_1", 32, 20, _q4_1),
    6: Format("Q5_0", 32, 22, _q5_0),
    7: Format("Q5_1", 32, 24, _q5_1),
    8: Format("Q8_0", 32, 34, _q8_0),
    10: Format("Q2_K", SUPER, 84, _q2_k),
    11: Format("Q3_K", SUPER, 110, _q3_k),
    12: Format("Q4_K", SUPER, 144, _q4_k),
    13: Format("Q5_K", SUPER, 176, _q5_k),
    14: Format("Q6_K", SUPER, 210, _q6_k),
    20: Format("IQ4_NL", 32, 18, _iq4_nl),
    23: Format("IQ4_XS", SUPER, 136, _iq4_xs),
}
"""What grows, by its number in a file."""

DENSE: Mapping[int, torch.dtype] = {
    0: torch.float32,
    1: torch.float16,
    24: torch.int8,
    25: torch.int16,
    26: torch.int32,
    27: torch.int64,
    28: torch.float64,
    30: torch.bfloat16,
}
"""What is stored as torch has it, by its number in a file."""

UNREAD: Mapping[int, str] = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
"""What is known by name alone."""
