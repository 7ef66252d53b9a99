"""The noise levels a model was trained on: sigma <-> timestep, the table of discrete sigmas, percent of the way.

Tables and interpolation are float32, as the programs that recorded existing images had them: the last bit decides
whether a step of an interval-switched solver is stochastic. Scalars cross as Python floats.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sigmagraph.engine.sampling.precision import float32

LOWEST_ZERO_SNR = 4.8973451890853435e-08  # the last alpha-bar of a zero-terminal-SNR table, kept above 0
BEFORE_THE_START = 999_999_999.9  # sigma of percent 0 on tables that have no natural upper end


class Levels(Protocol):
    """What schedules and parameterisations may ask about a model's noise levels.

    A position is the coordinate in which training picked levels evenly: the table index, or flow time before its shift.
    `timestep_scale` is the timestep of a position of 1, where the two are proportional in an unshifted model.
    """

    @property
    def timestep_scale(self) -> float:
        """Timesteps per unit of unshifted position."""

    @property
    def table(self) -> Tensor:
        """All trained sigmas, ascending, float32 [M]."""

    @property
    def sigma_min(self) -> float:
        """The lowest trained level above 0."""

    @property
    def sigma_max(self) -> float:
        """The highest trained level."""

    def timestep(self, sigma: float) -> float:
        """What the network is fed at this level."""

    def sigma(self, timestep: float) -> float:
        """The level of a timestep: the inverse of `timestep`."""

    def position(self, sigma: float) -> float:
        """Where the level lies on the evenly trained coordinate."""

    def sigmas_at(self, positions: Tensor) -> Tensor:
        """Levels at float32 positions [N] -> [N]: the inverse of `position`."""

    def percent_to_sigma(self, percent: float) -> float:
        """The level reached after this fraction (0 to 1) of the way from noise to image."""


class _Table(ABC):
    """What follows from a table alone."""

    @cached_property
    @abstractmethod
    def table(self) -> Tensor:
        """All trained sigmas, ascending, float32 [M]."""

    @property
    def sigma_min(self) -> float:
        """The lowest trained level above 0."""
        return float(self.table[0])

    @property
    def sigma_max(self) -> float:
        """The highest trained level."""
        return float(self.table[-1])


def _rounded_down(sigmas: Tensor, positions: Tensor) -> Tensor:
    """Levels of positions up to 1, of which single precision makes 1.0000001 with a few shifts; others as they are."""
    return torch.where(positions <= 1.0, sigmas.clamp(max=1.0), sigmas)


@dataclass(frozen=True)
class FlowLevels(_Table):
    """Rectified flow with a resolution shift (Esser 2024, arXiv:2403.03206, eq. 23): SD3 has shift 3, scale 1000."""

    shift: float = 3.0
    timestep_scale: float = 1000.0
    count: int = 1000

    @cached_property
    def table(self) -> Tensor:
        even = torch.arange(1, self.count + 1) / self.count * self.timestep_scale
        return self.sigmas_at(even / self.timestep_scale)

    def timestep(self, sigma: float) -> float:
        return sigma * self.timestep_scale

    def sigma(self, timestep: float) -> float:
        return timestep / self.timestep_scale

    def position(self, sigma: float) -> float:
        return sigma / (self.shift - (self.shift - 1.0) * sigma)

    def sigmas_at(self, positions: Tensor) -> Tensor:
        if self.shift == 1.0:
            return positions
        return _rounded_down(self.shift * positions / (1 + (self.shift - 1) * positions), positions)

    def percent_to_sigma(self, percent: float) -> float:
        left = min(max(1.0 - percent, 0.0), 1.0)
        return self.shift * left / (1.0 + (self.shift - 1.0) * left)


@dataclass(frozen=True)
class FluxLevels(_Table):
    """Rectified flow with Flux's exponential shift: sigma = e^mu / (e^mu + 1/u - 1); the network is fed sigma."""

    mu: float = 1.15
    count: int = 10_000
    timestep_scale: float = 1.0

    @cached_property
    def table(self) -> Tensor:
        return self.sigmas_at(torch.arange(1, self.count + 1) / self.count)

    def timestep(self, sigma: float) -> float:
        return sigma

    def sigma(self, timestep: float) -> float:
        return timestep

    def position(self, sigma: float) -> float:
        return 1.0 / (1.0 + math.exp(self.mu) * (1.0 / sigma - 1.0)) if sigma > 0 else 0.0

    def sigmas_at(self, positions: Tensor) -> Tensor:
        return _rounded_down(math.exp(self.mu) / (math.exp(self.mu) + (1 / positions - 1)), positions)

    def percent_to_sigma(self, percent: float) -> float:
        left = min(max(1.0 - percent, 0.0), 1.0)
        return math.exp(self.mu) / (math.exp(self.mu) + (1.0 / left - 1.0)) if left > 0 else 0.0


@dataclass(frozen=True)
class DiscreteLevels(_Table):
    """A thousand trained levels from a linear-in-sqrt(beta) table (SD1, SDXL); between them, ln sigma is linear."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    count: int = 1000
    zero_terminal_snr: bool = False
    timestep_scale: float = 1.0

    @cached_property
    def _sigmas_f64(self) -> Tensor:
        betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.count, dtype=torch.float64) ** 2
        kept = torch.cumprod(1.0 - betas, dim=0)
        sigmas = ((1 - kept) / kept) ** 0.5
        return _zero_terminal(sigmas) if self.zero_terminal_snr else sigmas

    @cached_property
    def table(self) -> Tensor:
        return self._sigmas_f64.float()

    @cached_property
    def _logs(self) -> Tensor:
        return self._sigmas_f64.log().float()  # the float32 of the exact log, not the log of the float32 table

    @cached_property
    def _log_list(self) -> list[float]:
        return self._logs.tolist()

    def timestep(self, sigma: float) -> float:
        """The index of the trained level nearest in ln(sigma), as the network was trained on whole numbers only."""
        return self._nearest(sigma)

    def _nearest(self, sigma: float) -> float:
        logs, log = self._log_list, float32(math.log(max(sigma, 1e-30)))
        above = min(max(bisect_left(logs, log), 1), len(logs) - 1)
        return float(above if logs[above] - log < log - logs[above - 1] else above - 1)

    def sigma(self, timestep: float) -> float:
        return float(self.sigmas_at(torch.tensor(timestep, dtype=torch.float32)))

    def position(self, sigma: float) -> float:
        """Fractional, unlike `timestep`, which the network takes as a whole number."""
        logs, log = self._log_list, math.log(max(sigma, 1e-30))
        above = min(max(bisect_left(logs, log), 1), len(logs) - 1)
        within = (log - logs[above - 1]) / (logs[above] - logs[above - 1])
        return above - 1 + min(max(within, 0.0), 1.0)

    def sigmas_at(self, positions: Tensor) -> Tensor:
        at = positions.clamp(0, len(self._logs) - 1)
        low, high, weight = at.floor().long(), at.ceil().long(), at.frac()
        return ((1 - weight) * self._logs[low] + weight * self._logs[high]).exp()

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0 or percent >= 1:
            return BEFORE_THE_START if percent <= 0 else 0.0
        return self.sigma((1.0 - percent) * (self.count - 1))


@dataclass(frozen=True)
class DistilledLevels(DiscreteLevels):
    """Fifty of a discrete table's thousand levels, every `skipped`-th up to the top: what an LCM was distilled on."""

    skipped: int = 20

    @cached_property
    def table(self) -> Tensor:
        return self._sigmas_f64.float()[self.skipped - 1 :: self.skipped]

    @cached_property
    def _logs(self) -> Tensor:
        return self.table.log()

    def timestep(self, sigma: float) -> float:
        """The trained index of the nearest of the fifty."""
        return (self._nearest(sigma) + 1) * self.skipped - 1

    def position(self, sigma: float) -> float:
        return (super().position(sigma) + 1) * self.skipped - 1

    def sigmas_at(self, positions: Tensor) -> Tensor:
        return super().sigmas_at((positions - (self.skipped - 1)) / self.skipped)


@dataclass(frozen=True)
class ContinuousLevels(_Table):
    """Levels spread evenly in ln sigma: EDM (the network is fed ln(sigma)/4) or continuous v (2/pi atan sigma)."""

    lowest: float = 0.002
    highest: float = 120.0
    clock: str = "log"
    count: int = 1000
    timestep_scale: float = 1.0

    @cached_property
    def table(self) -> Tensor:
        return torch.linspace(math.log(self.lowest), math.log(self.highest), self.count).exp()

    def timestep(self, sigma: float) -> float:
        if self.clock == "atan":
            return math.atan(sigma) / math.pi * 2
        return 0.25 * math.log(sigma) if self.clock == "log" else sigma / (1.0 + sigma)

    def sigma(self, timestep: float) -> float:
        if self.clock == "atan":
            return math.tan(timestep * math.pi / 2)
        return math.exp(timestep / 0.25) if self.clock == "log" else timestep / (1.0 - timestep)

    def position(self, sigma: float) -> float:
        return self.timestep(sigma)

    def sigmas_at(self, positions: Tensor) -> Tensor:
        if self.clock == "atan":
            return (positions * math.pi / 2).tan()
        return (positions / 0.25).exp() if self.clock == "log" else positions / (1 - positions)

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0 or percent >= 1:
            return BEFORE_THE_START if percent <= 0 else 0.0
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return math.exp((high - low) * (1.0 - percent) + low)


@dataclass(frozen=True)
class Span(ContinuousLevels):
    """Any two ends, for schedules that look at nothing else of a model."""

    @property
    def sigma_min(self) -> float:
        return self.lowest

    @property
    def sigma_max(self) -> float:
        return self.highest


def _zero_terminal(sigmas: Tensor) -> Tensor:
    """Stretch a table so that its last level carries no signal (Lin 2023, arXiv:2305.08891, Alg. 1)."""
    amplitudes = (1 / (sigmas**2 + 1)).sqrt()
    first, last = amplitudes[0].clone(), amplitudes[-1].clone()
    kept = ((amplitudes - last) * (first / (first - last))) ** 2
    kept[-1] = LOWEST_ZERO_SNR
    return ((1 - kept) / kept) ** 0.5
