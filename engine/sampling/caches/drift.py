"""How far a run with a step cache is from the run without it, estimated from what the run itself sees.

A solver follows dx/dsigma = (x - D) / sigma. Where an estimate D' stands in for D, the slope is off by
e = (D - D') / sigma. What D would have been is known wherever the model is asked again after a forecast was possible:
there e is measured. On the way there it grew with the reach of the forecast, the product of the distances to the levels
it was made from: one level for something taken as it was, k for a polynomial through k points. So an evaluation of
reach d was off by e d / g, with g the reach where e was measured. The state is then off by the sum of these over the
steps, each times its length. Whether later steps make an early error smaller or larger depends on the data; here it is
taken to stay as it is.

Errors are tensors and keep their signs until the end, so that those of both sides of guidance cancel as they do in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Drift", "Observed", "relative_distance"]

Weigh = Callable[[float, int], Sequence[float]]
"""A noise level and the number of sides asked about there -> how much each side's estimate counts in the guided one."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One side's estimate at one level: which rows were computed, and what the cache would have said of `checked` ones.

    `reach`: of each row's forecast at this level; 0 where none could be made.
    """

    is_full: Sequence[bool]
    checked: Sequence[bool]
    denoised: Tensor
    forecast: Tensor | None
    reach: Sequence[float]


@dataclass(slots=True)
class _Row:
    """One image of one side: what it was off by since it was last compared, per unit of error and reach."""

    pending: float = 0.0
    open_step: tuple[float, float] | None = None  # the level of a forecast whose step is not over; weight times reach
    farthest: float = 0.0


@dataclass
class Drift:
    """The estimate for one predictor of one run. `asked` and `skipped` count estimates of one image and one side."""

    weigh: Weigh = lambda sigma, sides: [1.0] * sides
    asked: int = 0
    skipped: int = 0
    evaluations: int = 0
    _rows: dict[int, list[_Row]] = field(default_factory=dict)
    _rates: dict[int, Tensor] = field(default_factory=dict)
    _answers: dict[int, Tensor] = field(default_factory=dict)
    _total: Tensor | None = None

    def observe(self, sigma: float, sides: Sequence[Observed]) -> None:
        """Take note of one evaluation; sides are counted from the last, which is the conditional one."""
        self.evaluations += 1
        weights = self.weigh(sigma, len(sides))
        for place, (side, weight) in enumerate(zip(sides, weights, strict=True), start=-len(sides)):
            self._observe(place, sigma, side, weight)

    def _observe(self, place: int, sigma: float, side: Observed, weight: float) -> None:
        rows = self._rows.get(place)
        if rows is None or len(rows) != len(side.is_full):
            rows = self._rows[place] = [_Row() for _ in side.is_full]
            self._rates.pop(place, None)
        self._answers[place] = side.denoised
        coefficients, rates = [0.0] * len(rows), [0.0] * len(rows)
        for at, row in enumerate(rows):
            _close(row, sigma)
            self.asked += 1
            if not side.is_full[at]:
                self.skipped += 1
                row.open_step = sigma, weight * side.reach[at]
                row.farthest = max(row.farthest, side.reach[at])
            elif side.checked[at] and side.reach[at] > 0:
                rates[at] = 1 / side.reach[at]
                coefficients[at] = row.pending * rates[at]
                row.pending = 0.0
        if any(rates) and side.forecast is not None:
            error = (side.denoised - side.forecast).float() / sigma
            self._add(error * _per_image(coefficients, error))
            newest = error * _per_image(rates, error)
            older = self._rates.get(place)
            if older is not None and older.shape == newest.shape and not all(rates):
                newest = torch.where(_per_image(rates, error) > 0, newest, older.to(newest.device))
            self._rates[place] = newest

    def finished(self, final: Tensor, lowest: float = 0.0) -> Tensor:
        """The estimate for each image [B], relative to the spread of `final` [B, ...], once the run is at `lowest`.

        What was left out after the last look at the model is taken to go wrong as before; where there was no such look
        at all, by as much as the answer itself.
        """
        for place, rows in self._rows.items():
            for row in rows:
                _close(row, lowest)
            pending = [row.pending for row in rows]
            if any(pending) and self._answers[place].shape == final.shape:
                rate = self._rates.get(place)
                rate = self._blind_rate(place) if rate is None else rate
                self._add(rate * _per_image(pending, rate))
        if self._total is None or self._total.shape != final.shape:
            return torch.zeros(len(final))
        return (_rms(self._total.to(final.device)) / _spread(final)).cpu()

    @property
    def is_blind(self) -> bool:
        """Whether a side was foretold, and the model never asked again where that could be compared."""
        return any(
            place not in self._rates and any(row.pending or row.open_step for row in rows)
            for place, rows in self._rows.items()
        )

    def _blind_rate(self, place: int) -> Tensor:
        """An error as large as the answer at the farthest reach of a forecast."""
        answer = self._answers[place].float()
        return answer * _per_image([1 / row.farthest if row.farthest else 0.0 for row in self._rows[place]], answer)

    def _add(self, error: Tensor) -> None:
        same = self._total is not None and self._total.shape == error.shape
        self._total = self._total.to(error.device) + error if same and self._total is not None else error


def _close(row: _Row, sigma: float) -> None:
    """A step that began with a forecast leads down to this level."""
    if row.open_step is not None:
        level, weight = row.open_step
        row.pending += weight * max(level - sigma, 0.0)
        row.open_step = None


def relative_distance(one: Tensor, other: Tensor) -> Tensor:
    """Root mean square difference of each image [B] from `other`'s, in units of the spread of that."""
    return (_rms(one.float() - other.float()) / _spread(other.float())).cpu()


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def _spread(x: Tensor) -> Tensor:
    return x.float().flatten(1).std(1).clamp(min=torch.finfo(torch.float32).tiny)


def _per_image(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).reshape(-1, *(1,) * (like.ndim - 1))
