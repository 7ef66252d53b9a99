"""Which forwards of a transformer may take the result of its blocks from earlier ones, and what they take.

Every rule here works on the image tokens h that enter the blocks and those that leave them. Their difference, the
residual r = h_out - h_in, changes slowly from level to level, while what stands before and behind the blocks costs
almost nothing. A rule says when r is foretold instead of computed:

    FirstBlock   while the first block's own residual has changed little since the last full forward
    TeaCache     while the changes of the first block's modulated input add up to little
    MagCache     while the length of r is foretold to have changed little
    TaylorSeer   in all but each n-th forward; there r is extrapolated along a polynomial

A rule is immutable and knows no network; what it has seen is in a run's `CacheSlot`. At its neutral setting it asks for
every forward in full.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.caches.slot import CacheSlot
from sigmagraph.engine.sampling.caller_values import check_numbers

__all__ = ["BlockCache", "FirstBlock", "MagCache", "TaylorSeer", "TeaCache"]

UNBOUNDED = -1


@dataclass(frozen=True, kw_only=True)
class BlockCache:
    """What all rules have: they act from a share `start` of the way to `end`, 0 noise and 1 picture.

    `most_hits` bounds how often in a row a forward is left out; -1 does not.
    """

    start: float = 0.0
    end: float = 1.0
    most_hits: int = UNBOUNDED

    label: ClassVar[str]
    first_runs: ClassVar[bool] = False  # the first block runs in every forward; the residual is that of the others
    compares: ClassVar[bool] = False  # something made in the forward itself is compared with what it was before
    follows: ClassVar[bool] = False  # ... in the last forward, not in the last full one
    measures: ClassVar[bool] = False  # the lengths of residuals are noted

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.start <= self.end <= 1:
            raise BadValue(
                f"{self.label}.start, end", (self.start, self.end), "shares of the way, 0 <= start <= end <= 1"
            )
        if self.most_hits < UNBOUNDED:
            raise BadValue(f"{self.label}.most_hits", self.most_hits, "a number of forwards, or -1 for no bound")

    @property
    def setting(self) -> float:
        """The number that says how much is left out; 0 is the plain model, and 1 of an interval."""
        raise NotImplementedError

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is ever left out."""
        return self.setting == 0 or self.most_hits == 0

    @property
    def keeps(self) -> int:
        """How many residuals of full forwards are kept."""
        return 1

    def is_hit(self, slot: CacheSlot, row: int, change: float, sigma: float) -> bool:
        """Whether a row's blocks need not run. `change` is that of the signal, relative; 0 without one."""
        raise NotImplementedError

    def forecast(self, slot: CacheSlot, sigma: float) -> Tensor:
        """The residuals of all rows at this level."""
        return slot.known[-1].residual

    def reach(self, slot: CacheSlot, row: int, sigma: float) -> float:
        """How far a row's forecast reaches: the product of the distances to the levels it is made from."""
        return abs(slot.levels[row] - sigma) if slot.is_known(row) else 0.0

    def hits(self, slot: CacheSlot, changes: Sequence[float], sigma: float, is_acting: bool) -> list[bool]:
        """Row by row whether its blocks need not run; rows never seen are computed."""
        found = []
        for row, change in enumerate(changes):
            may = is_acting and slot.is_known(row) and (self.most_hits < 0 or slot.hits[row] < self.most_hits)
            found.append(may and self.is_hit(slot, row, change, sigma))
            slot.hits[row] += found[-1]
        return found


def _checked_threshold(label: str, threshold: float) -> None:
    if not 0 <= threshold < math.inf:
        raise BadValue(f"{label}.threshold", threshold, "a number from 0, which is the plain model")


@dataclass(frozen=True)
class FirstBlock(BlockCache):
    """First-block cache (ParaAttention, 2024).

    The first block runs always. With d its residual now and d' that of the last full forward, the others are left out
    while mean|d - d'| / mean|d'| < threshold.
    """

    threshold: float = 0.1

    label: ClassVar[str] = "first_block"
    first_runs: ClassVar[bool] = True
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checked_threshold(self.label, self.threshold)

    @property
    def setting(self) -> float:
        return self.threshold

    def is_hit(self, slot: CacheSlot, row: int, change: float, sigma: float) -> bool:
        return change < self.threshold


@dataclass(frozen=True)
class TeaCache(BlockCache):
    """TeaCache (Liu 2024, arXiv:2411.19108).

    The modulated input of the first block is compared with that of the forward before. A polynomial maps the relative
    change to that of the output; the results add up, and below the threshold no block runs. `coefficients`, the highest
    power first, are fitted to a model; (1, 0) takes the change as it is.
    """

    threshold: float = 0.2
    coefficients: tuple[float, ...] = (1.0, 0.0)

    label: ClassVar[str] = "teacache"
    compares: ClassVar[bool] = True
    follows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checked_threshold(self.label, self.threshold)
        if not self.coefficients or not all(math.isfinite(one) for one in self.coefficients):
            raise BadValue(f"{self.label}.coefficients", self.coefficients, "finite numbers, the highest power first")

    @property
    def setting(self) -> float:
        return self.threshold

    def is_hit(self, slot: CacheSlot, row: int, change: float, sigma: float) -> bool:
        total = 0.0
        for coefficient in self.coefficients:
            total = total * change + coefficient
        slot.foretold[row] += max(total, 0.0)
        return slot.foretold[row] < self.threshold


@dataclass(frozen=True)
class MagCache(BlockCache):
    """MagCache (Ma 2025, arXiv:2506.09045).

    The mean length m of the residual's tokens is nearly the same function of the level for every prompt. Since the last
    full forward at s the errors |1 - m(sigma) / m(s)| add up, and below the threshold no block runs. `magnitudes` are
    pairs (level, m) measured on the model, read along straight lines; without them m is extrapolated, as an exponential
    in the level, from the run's own last two full forwards.
    """

    threshold: float = 0.1
    magnitudes: tuple[tuple[float, float], ...] = ()
    most_hits: int = field(default=5, kw_only=True)

    label: ClassVar[str] = "magcache"
    measures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checked_threshold(self.label, self.threshold)
        if not all(level >= 0 and 0 < size < math.inf for level, size in self.magnitudes):
            raise BadValue(f"{self.label}.magnitudes", self.magnitudes, "pairs of a level and a length above 0")

    @property
    def setting(self) -> float:
        return self.threshold

    def is_hit(self, slot: CacheSlot, row: int, change: float, sigma: float) -> bool:
        ratio = self._ratio(slot, row, sigma)
        if ratio is None:
            return False
        slot.foretold[row] += abs(1.0 - ratio)
        return slot.foretold[row] < self.threshold

    def _ratio(self, slot: CacheSlot, row: int, sigma: float) -> float | None:
        """m(sigma) / m at the last full forward; None where too little is known."""
        if self.magnitudes:
            return _along(self.magnitudes, sigma) / _along(self.magnitudes, slot.levels[row])
        if len(slot.norms[row]) < 2:
            return None
        (before, long), (last, longer) = slot.norms[row][-2:]
        if before == last or not (long > 0 and longer > 0):
            return None
        return math.exp(max(-8.0, min(8.0, math.log(longer / long) / (last - before) * (sigma - last))))


def _along(points: Sequence[tuple[float, float]], sigma: float) -> float:
    """The height at `sigma` of the line through points, level outside of them."""
    listed = sorted(points)
    for (low, one), (high, other) in zip(listed, listed[1:], strict=False):
        if low <= sigma <= high:
            return one if high == low else one + (other - one) * (sigma - low) / (high - low)
    return listed[0][1] if sigma < listed[0][0] else listed[-1][1]


@dataclass(frozen=True)
class TaylorSeer(BlockCache):
    """TaylorSeer (Liu 2025, arXiv:2503.06923), on the residual of all blocks.

    Each `interval`-th forward is full, and so are the first `warmup`; between them the residual is read from the
    polynomial of degree `degree` through the last full ones. The paper's finite differences are for even steps; here
    they are divided differences in the level, so that steps may be of any size.
    """

    interval: int = 2
    degree: int = 1
    warmup: int = 3

    label: ClassVar[str] = "taylorseer"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, lowest in (("interval", 1), ("degree", 0), ("warmup", 1)):
            if not isinstance(value := getattr(self, name), int) or value < lowest:
                raise BadValue(f"{self.label}.{name}", value, f"a whole number from {lowest}")

    @property
    def setting(self) -> float:
        return self.interval

    @property
    def is_neutral(self) -> bool:
        return self.interval == 1 or self.most_hits == 0

    @property
    def keeps(self) -> int:
        return self.degree + 1

    def reach(self, slot: CacheSlot, row: int, sigma: float) -> float:
        return math.prod(abs(known.sigma - sigma) for known in slot.known) if slot.known else 0.0

    def is_hit(self, slot: CacheSlot, row: int, change: float, sigma: float) -> bool:
        return slot.forwards >= self.warmup and slot.hits[row] < self.interval - 1

    def forecast(self, slot: CacheSlot, sigma: float) -> Tensor:
        """Newton's form, the newest full forward first: r_0 + (sigma - s_0) r[0, 1] + ..."""
        levels = [one.sigma for one in reversed(slot.known)]
        parts = [one.residual.float() for one in reversed(slot.known)]
        total, reach = parts[0], 1.0
        for depth in range(1, len(levels)):
            parts = [(parts[at] - parts[at + 1]) / (levels[at] - levels[at + depth]) for at in range(len(parts) - 1)]
            reach *= sigma - levels[depth - 1]
            total = total + parts[0] * reach
        return total.to(slot.known[-1].residual.dtype)


def relative_change(now: Tensor, before: Tensor) -> Tensor:
    """mean|now - before| / mean|before| of every row [B, ...], in float32."""
    moved = (now.float() - before.float()).abs().flatten(1).mean(1)
    size: Tensor = before.float().abs().flatten(1).mean(1)
    return moved / size.clamp(min=torch.finfo(torch.float32).tiny)
