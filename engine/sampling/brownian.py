"""A virtual Brownian tree: the increments of one Brownian motion over noise levels, made on demand, never stored.

The same seed gives the same path however it is asked for. The tree's shape, its rounding to six decimals and the
seeding of its nodes are those of torchsde's BrownianTree (Li 2020, arXiv:2001.01328, section 4). So images made with
that can be made again. Word generation is NumPy's SeedSequence (O'Neill's seed_seq), written in plain integers.
"""

import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from sigmagraph.engine.sampling.precision import float32

POOL_WORDS = 24
DECIMALS = 6
KEPT_NODES = 64  # two root-to-leaf paths at six decimals
WORD = 2**32


class BrownianTree:
    """One Brownian path over [low, high]; `draw(node)` gives unit normal noise for a node (k, depth) or the root.

    The root's noise is asked for as None: it is the whole interval's increment, (0, 0) is where that is first split.
    """

    def __init__(self, low: float, high: float, draw: Callable[[tuple[int, int] | None], Tensor]) -> None:
        self._draw = draw
        self._low, self._high = round(low, DECIMALS), round(high, DECIMALS)
        self._whole = draw(None) * math.sqrt(high - low)
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def unit_noise(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit-variance noise of the way from `sigma` down to `sigma_next`."""
        high, low = float32(sigma), float32(sigma_next)
        if high == low:  # one level in single precision
            return torch.zeros_like(self._whole)
        width = torch.tensor(high - low, dtype=torch.float32)
        return -self.increment(low, high) / width.sqrt()  # torch's float32 root can be off by a bit, and images show it

    def increment(self, start: float, end: float) -> Tensor:
        """W(end) - W(start), start < end; both are clamped to the tree and rounded to six decimals."""
        first, last = (round(min(max(at, self._low), self._high), DECIMALS) for at in (start, end))
        if first >= last:  # levels that agree to six decimals: the path has not moved
            return torch.zeros_like(self._whole)
        pieces = self._pieces(first, last, self._low, self._high, self._whole, 0, 0)
        return reduce(operator.add, pieces)  # left to right, as the recorded images have it

    def _pieces(
        self, start: float, end: float, low: float, high: float, whole: Tensor, k: int, depth: int
    ) -> list[Tensor]:
        """Increments that make up [start, end] inside node (k, depth), which spans [low, high] and moves by `whole`."""
        if (start, end) == (low, high):
            return [whole]
        middle = round((low + high) / 2, DECIMALS)
        first = self._left(low, middle, high, whole, k, depth)
        pieces = []
        if start < middle:
            pieces += self._pieces(start, min(end, middle), low, middle, first, 2 * k, depth + 1)
        if end > middle:
            pieces += self._pieces(max(start, middle), end, middle, high, whole - first, 2 * k + 1, depth + 1)
        return pieces

    def _left(self, low: float, middle: float, high: float, whole: Tensor, k: int, depth: int) -> Tensor:
        """The increment of a node's left half: a Brownian bridge. The newest nodes are kept: the next query is near."""
        if (k, depth) in self._kept:
            self._kept.move_to_end((k, depth))
            return self._kept[k, depth]
        left, right = middle - low, high - middle
        per_width = 1 / (high - low)  # the order of operations is that of the recorded images, down to the last bit
        noise = self._draw((k, depth))
        first = whole * left * per_width + noise * math.sqrt(left * right * per_width)
        self._kept[k, depth] = first
        if len(self._kept) > KEPT_NODES:
            self._kept.popitem(last=False)
        return first


class SeedWords:
    """NumPy's SeedSequence(seed, spawn_key, pool_size=24): call it with a spawn key and a count of 32-bit words."""

    def __init__(self, seed: int) -> None:
        self._given = _words(seed)
        self._hash = _Hash()
        self._pool = [self._hash(self._given[at] if at < len(self._given) else 0) for at in range(POOL_WORDS)]
        for source in range(POOL_WORDS):
            for target in range(POOL_WORDS):
                if source != target:
                    self._pool[target] = _mixed(self._pool[target], self._hash(self._pool[source]))

    def of_node(self, node: tuple[int, int] | None) -> int:
        """The word that seeds a node's generator, as torchsde takes it."""
        return self((), 3)[0] if node is None else self(node, 4)[0]

    def __call__(self, spawn_key: Sequence[int], count: int) -> list[int]:
        pool, hashed = list(self._pool), _Hash(self._hash.multiplier)
        for word in (word for key in spawn_key for word in _words(key)):
            for target in range(POOL_WORDS):
                pool[target] = _mixed(pool[target], hashed(word))
        out, multiplier = [], 0x8B51F9DD
        for place in range(count):
            value = pool[place % POOL_WORDS] ^ multiplier
            multiplier = multiplier * 0x58F38DED % WORD
            value = value * multiplier % WORD
            out.append(value ^ (value >> 16))
        return out


class _Hash:
    """A hash whose multiplier moves on with every word."""

    def __init__(self, multiplier: int = 0x43B0D7E5) -> None:
        self.multiplier = multiplier

    def __call__(self, value: int) -> int:
        value ^= self.multiplier
        self.multiplier = self.multiplier * 0x931E8875 % WORD
        value = value * self.multiplier % WORD
        return value ^ (value >> 16)


def _mixed(x: int, y: int) -> int:
    value = (0xCA01F9DD * x - 0x4973F715 * y) % WORD
    return value ^ (value >> 16)


def _words(number: int) -> list[int]:
    """A number as 32-bit words, lowest first; 0 is one word."""
    words = [number % WORD]
    while number := number // WORD:
        words.append(number % WORD)
    return words
