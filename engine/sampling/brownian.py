"""A virtual Brownian tree: the increments of one Brownian motion over noise levels, made on demand, never stored.

The same seed gives the same path however it is asked for. The tree's shape, its rounding to six decimals and the
seeding of its nodes are those of torchsde's BrownianTree (Li 2020, arXiv:2001.01328, section 4), so that images made
with it can be made again. Word generation is NumPy's SeedSequence (O'Neill's seed_seq), written in plain integers.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

POOL_WORDS = 24
DECIMALS = 6
WORD = 2**32


class BrownianTree:
    """One Brownian path over [low, high]; `draw(word)` gives unit normal noise from a generator seeded with `word`."""

    def __init__(self, seed: int, low: float, high: float, draw: Callable[[int], Tensor]) -> None:
        self._seed, self._draw = seed, draw
        self._low, self._high = round(low, DECIMALS), round(high, DECIMALS)
        root = seed_words(seed, (), 3)[0]
        self._whole = draw(root) * math.sqrt(high - low)

    def unit_noise(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit-variance noise of the way from `sigma` down to `sigma_next`."""
        high, low = torch.tensor([sigma, sigma_next], dtype=torch.float32)  # as the recorded images have it
        return -self.increment(float(low), float(high)) / float((high - low).sqrt())

    def increment(self, start: float, end: float) -> Tensor:
        """W(end) - W(start), start < end; both are clamped to the tree and rounded to six decimals."""
        first, last = (round(min(max(at, self._low), self._high), DECIMALS) for at in (start, end))
        pieces = self._pieces(first, last, self._low, self._high, self._whole, 0, 0)
        return reduce(operator.add, pieces)  # left to right, as the recorded images have it

    def _pieces(
        self, start: float, end: float, low: float, high: float, whole: Tensor, k: int, depth: int
    ) -> list[Tensor]:
        """Increments that make up [start, end] inside the node (k, depth), which spans [low, high] and moves `whole`."""
        if (start, end) == (low, high):
            return [whole]
        middle = round((low + high) / 2, DECIMALS)
        left, right, width = middle - low, high - middle, high - low
        word = seed_words(self._seed, (k, depth), 4)[0]
        # the order of operations is that of the recorded images, down to the last bit
        per_width = 1 / width
        first = whole * left * per_width + self._draw(word) * math.sqrt(left * right * per_width)
        pieces = []
        if start < middle:
            pieces += self._pieces(start, min(end, middle), low, middle, first, 2 * k, depth + 1)
        if end > middle:
            pieces += self._pieces(max(start, middle), end, middle, high, whole - first, 2 * k + 1, depth + 1)
        return pieces


def seed_words(entropy: int, spawn_key: Sequence[int], count: int) -> list[int]:
    """`count` 32-bit words from NumPy's SeedSequence(entropy, spawn_key, pool_size=24)."""
    given = _words(entropy)
    if spawn_key:
        given += [0] * (POOL_WORDS - len(given)) + [word for key in spawn_key for word in _words(key)]
    pool = _mixed_pool(given)
    out, multiplier = [], 0x8B51F9DD
    for place in range(count):
        value = pool[place % POOL_WORDS] ^ multiplier
        multiplier = multiplier * 0x58F38DED % WORD
        value = value * multiplier % WORD
        out.append(value ^ (value >> 16))
    return out


def _words(number: int) -> list[int]:
    """A number as 32-bit words, lowest first; 0 is one word."""
    words = [number % WORD]
    while number := number // WORD:
        words.append(number % WORD)
    return words


def _mixed_pool(given: Sequence[int]) -> list[int]:
    multiplier = 0x43B0D7E5

    def hashed(value: int) -> int:
        nonlocal multiplier
        value ^= multiplier
        multiplier = multiplier * 0x931E8875 % WORD
        value = value * multiplier % WORD
        return value ^ (value >> 16)

    def mixed(x: int, y: int) -> int:
        value = (0xCA01F9DD * x - 0x4973F715 * y) % WORD
        return value ^ (value >> 16)

    pool = [hashed(given[place] if place < len(given) else 0) for place in range(POOL_WORDS)]
    for source in range(POOL_WORDS):
        for target in range(POOL_WORDS):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for word in given[POOL_WORDS:]:
        for target in range(POOL_WORDS):
            pool[target] = mixed(pool[target], hashed(word))
    return pool
