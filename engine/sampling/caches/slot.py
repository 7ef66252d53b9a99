"""What one run knows of one conditioning's forwards: residuals at the levels where the blocks were computed.

Glossary: a row is one image of the batch; `full` a forward in which all blocks ran for a row, a hit one in which the
blocks' result was taken from earlier ones; a residual is what the blocks add to the image tokens, [B, N, D].
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

NEAR = 1e-4  # of a level: the difference of two residuals nearer than that is their rounding, and no slope


@dataclass(slots=True)
class Residual:
    """Residuals [B, N, D] of full forwards; where rows decide for themselves, each from its own level."""

    sigma: float
    residual: Tensor


@dataclass(slots=True)
class SlotVerdict:
    """What became of a slot's rows in one forward.

    `forecast` [B, C, h, w] is what the cache would have answered where `checked` says so: there all blocks ran too.
    `reach` is that of each row's forecast, 0 without one.
    """

    is_full: list[bool]
    checked: list[bool]
    reach: list[float]
    forecast: Tensor | None = None


@dataclass(slots=True)
class CacheSlot:
    """The state of one entry of a conditioning in one run, row by row. A rule reads it, and `learn` writes it.

    `known`: the newest last. `signal` is what a rule compares. `foretold` adds up what a rule foretells, since the last
    full forward; `hits` counts forwards since then; `levels` are where the last full ones were; `norms` all
    levels of full ones with the mean length of the residual's tokens there.
    """

    rows: int
    keeps_alive: tuple[object, ...] = ()
    known: list[Residual] = field(default_factory=list)
    signal: Tensor | None = None
    foretold: list[float] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    norms: list[list[tuple[float, float]]] = field(default_factory=list)
    forwards: int = 0
    verdict: SlotVerdict | None = None

    def __post_init__(self) -> None:
        self.foretold, self.hits = [0.0] * self.rows, [0] * self.rows
        self.levels, self.norms = [math.nan] * self.rows, [[] for _ in range(self.rows)]

    def is_known(self, row: int) -> bool:
        """Whether there was a full forward of this row."""
        return not math.isnan(self.levels[row])

    def learn(self, rows: list[int], residual: Tensor, sigma: float, most: int) -> None:
        """Take note of a full forward of some rows; `most` residuals are kept."""
        if len(rows) == self.rows:
            if (
                self.known and abs(self.known[-1].sigma - sigma) <= NEAR * sigma
            ):  # as good as one level: the newer counts
                self.known.pop()
            self.known = [*self.known, Residual(sigma, residual)][-most:]
        else:
            places = torch.tensor(rows, device=residual.device)
            newest = self.known[-1].residual if self.known else residual.new_zeros(self.rows, *residual.shape[1:])
            self.known = [Residual(sigma, newest.index_copy(0, places, residual))]
        for row in rows:
            self.foretold[row], self.hits[row], self.levels[row] = 0.0, 0, sigma
