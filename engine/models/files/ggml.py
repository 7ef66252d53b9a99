"""The number formats of GGUF files: blocks of small integers and their scales, to float32 and back.

Names, block sizes and arithmetic are ggml's, in the order of operations of the `gguf` package, whose float32 results
are met bit for bit. Torch alone, so a block grows on whatever device it lies. Knows no file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

CHUNK = 1 << 20  # elements worked on at once: they stay in the cache
SUPER = 256  # elements of a block of the K kinds
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

Grow = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of storing numbers: `size` in `bytes_` bytes. `grow` writes the floats [n, size] of blocks [n, bytes]."""

    name: str
    size: int
    bytes_: int
    grow: Grow


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
    values = torch.empty(len(blocks), kind.size, device=blocks.device)
    step = CHUNK // kind.size if blocks.device.type == "cpu" else max(len(blocks), 1)
    for start in range(0, len(blocks), step):
        kind.grow(blocks[start : start + step], values[start : start + step])
    return values


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at a byte of every block: [n, 1] float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _words(blocks: Tensor, start: int, stop: int) -> Tensor:
    """Bytes of every block, four to a word: shifts and masks then move four codes at once."""
    return blocks[:, start:stop].contiguous().view(torch.int32)


def _field(words: Tensor, shift: int, mask: int) -> Tensor:
    """The masked bits of each of a word's bytes, still four to a word."""
    return ((words >> shift) if shift else words) & (mask * 0x01010101)


def _bytes(words: Tensor) -> Tensor:
    return words.contiguous().view(torch.uint8)


def _nibbles(words: Tensor, values: Tensor) -> None:
    """Every low half, then every high half."""
    half = values.shape[1] // 2
    values[:, :half] = _bytes(_field(words, 0, 15))
    values[:, half:] = _bytes(_field(words, 4, 15))


@cache
def _fifth_bits(device: torch.device) -> Tensor:
    """For every byte, 8 bytes that hold 16 where it has a bit: [256] words of 64 bits."""
    bits = (torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)) & 1
    return (bits << 4).to(torch.uint8).view(torch.int64).flatten()


def _with_fifth(blocks: Tensor, at: int, values: Tensor) -> None:
    """Codes of five bits: a word of high bits, then 16 bytes of low halves."""
    _nibbles(_words(blocks, at + 4, at + 20), values)
    values += _fifth_bits(blocks.device)[blocks[:, at : at + 4].int()].view(torch.uint8)


def _q4_0(blocks: Tensor, values: Tensor) -> None:
    _nibbles(_words(blocks, 2, 18), values)
    values.sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor, values: Tensor) -> None:
    _nibbles(_words(blocks, 4, 20), values)
    values.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor, values: Tensor) -> None:
    _with_fifth(blocks, 2, values)
    values.sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor, values: Tensor) -> None:
    _with_fifth(blocks, 4, values)
    values.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor, values: Tensor) -> None:
    values.copy_(blocks[:, 2:].view(torch.int8)).mul_(_half(blocks, 0))


def _q2_k(blocks: Tensor, values: Tensor) -> None:
    """16 scales and minima of 4 bits each, 64 bytes of four codes, two halves."""
    codes, rows = _words(blocks, 16, 80), values.unflatten(1, (2, 4, 32))
    for at in range(4):
        rows[:, :, at] = _bytes(_field(codes, 2 * at, 3)).unflatten(1, (2, 32))
    scale = _half(blocks, 80) * (blocks[:, :16] & 15).float()
    least = _half(blocks, 82) * (blocks[:, :16] >> 4).float()
    values.unflatten(1, (16, 16)).mul_(scale[:, :, None]).sub_(least[:, :, None])


def _q3_k(blocks: Tensor, values: Tensor) -> None:
    """A mask of high bits, 64 bytes of four low codes, 16 scales of 6 bits in 12 bytes, a half."""
    high, low, rows = _words(blocks, 0, 32), _words(blocks, 32, 96).unflatten(1, (2, 8)), values.unflatten(1, (8, 32))
    for at in range(8):
        rows[:, at] = _bytes(_field(low[:, at // 4], at % 4 * 2, 3) | (_field(high, at, 1) << 2))
    values -= 4  # the third bit counts downwards: four less where it is not set
    packed, fourths = blocks[:, 96:104], blocks[:, 104:108]
    four = torch.cat([packed & 15, packed >> 4], dim=1)
    two = torch.cat([(fourths >> shift) & 3 for shift in (0, 2, 4, 6)], dim=1)
    scale = _half(blocks, 108) * ((four | (two << 4)).float() - 32)
    values.unflatten(1, (16, 16)).mul_(scale[:, :, None])


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes -> 8 scales and 8 minima of 6 bits: [n, 8] each."""
    first, second, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, (mixed & 15) | ((first >> 2) & 48)], dim=1)
    minima = torch.cat([second & 63, (mixed >> 4) | ((second >> 2) & 48)], dim=1)
    return scales.float(), minima.float()


def _scaled_less(blocks: Tensor, values: Tensor) -> None:
    """By the scales and less the minima that begin the blocks of Q4_K and Q5_K."""
    scales, minima = _six_bits(blocks[:, 4:16])
    scale, least = _half(blocks, 0) * scales, _half(blocks, 2) * minima
    values.unflatten(1, (8, 32)).mul_(scale[:, :, None]).sub_(least[:, :, None])


def _q4_k(blocks: Tensor, values: Tensor) -> None:
    codes, rows = _words(blocks, 16, 144), values.unflatten(1, (4, 2, 32))
    for at in range(2):
        rows[:, :, at] = _bytes(_field(codes, 4 * at, 15)).unflatten(1, (4, 32))
    _scaled_less(blocks, values)


def _q5_k(blocks: Tensor, values: Tensor) -> None:
    high, low, rows = _words(blocks, 16, 48), _words(blocks, 48, 176).unflatten(1, (4, 8)), values.unflatten(1, (8, 32))
    for at in range(8):
        rows[:, at] = _bytes(_field(low[:, at // 2], at % 2 * 4, 15) | (_field(high, at, 1) << 4))
    _scaled_less(blocks, values)


def _q6_k(blocks: Tensor, values: Tensor) -> None:
    """128 bytes of two low codes, 64 bytes of four high ones, 16 scales of 8 bits, a half."""
    low, high = _words(blocks, 0, 128).unflatten(1, (2, 2, 8)), _words(blocks, 128, 192).unflatten(1, (2, 8))
    rows = values.unflatten(1, (2, 4, 32))
    for group in range(2):
        for at in range(4):
            four = _field(low[:, group, at % 2], at // 2 * 4, 15)
            rows[:, group, at] = _bytes(four | (_field(high[:, group], 2 * at, 3) << 4))
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8).float()
    values.sub_(32).unflatten(1, (16, 16)).mul_(scale[:, :, None])


def _look_up(values: Tensor) -> None:
    """The codes that `values` are, replaced by what they stand for."""
    table = torch.tensor(IQ4_VALUES, dtype=torch.float32, device=values.device)
    values.copy_(table[values.int()])


def _iq4_nl(blocks: Tensor, values: Tensor) -> None:
    _nibbles(_words(blocks, 2, 18), values)
    _look_up(values)
    values.mul_(_half(blocks, 0))


def _iq4_xs(blocks: Tensor, values: Tensor) -> None:
    """A half, 8 scales of 6 bits (high bits in 2 bytes, low ones in 4), 128 bytes of two codes."""
    by = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=blocks.device)
    high = ((blocks[:, 2:4, None] >> by) & 3).flatten(1)
    low = torch.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], dim=2).flatten(1)
    scale = _half(blocks, 0) * ((low | (high << 4)).float() - 32)
    codes, rows = _words(blocks, 8, 136), values.unflatten(1, (8, 2, 16))
    for at in range(2):
        rows[:, :, at] = _bytes(_field(codes, 4 * at, 15)).unflatten(1, (8, 16))
    _look_up(values)
    values.unflatten(1, (8, 32)).mul_(scale[:, :, None])


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
