"""Problems whose exact answer is known: Gaussians on the line, every element of a state a problem of its own.

On the line the probability-flow ODE keeps every point at its quantile of the noised density. So the exact path follows
from that density's distribution function, whatever the solver.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sigmagraph.engine.sampling.process import Process
from sigmagraph.engine.sampling.solver import Prediction

HALVINGS = 80  # of an interval of 400: to the last bit of float64


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on the line, noised by `process`; as a denoiser both its estimates agree."""

    process: Process
    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        denoised = self.denoised(x, sigma)
        return Prediction(denoised, denoised)

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """The posterior mean of the clean value."""
        a = self.process.alpha(sigma)
        logits, parts = [], []
        for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True):
            variance, off = a**2 * std**2 + sigma**2, x - a * mean
            logits.append(off.square() * (-0.5 / variance) + (math.log(weight) - 0.5 * math.log(variance)))
            parts.append(off * (a * std**2 / variance) + mean)
        return (torch.stack(logits).softmax(0) * torch.stack(parts)).sum(0)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """The logarithm of the noised density, per element."""
        a, terms = self.process.alpha(sigma), []
        for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True):
            variance = a**2 * std**2 + sigma**2
            terms.append(
                (x - a * mean).square() * (-0.5 / variance) + math.log(weight / math.sqrt(math.tau * variance))
            )
        return torch.stack(terms).logsumexp(0)

    def below(self, x: Tensor, sigma: float) -> Tensor:
        """The noised density's distribution function."""
        a, total = self.process.alpha(sigma), torch.zeros_like(x)
        for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True):
            total = total + weight * torch.special.ndtr((x - a * mean) / math.sqrt(a**2 * std**2 + sigma**2))
        return total

    def quantile(self, share: Tensor, sigma: float) -> Tensor:
        """The point below which this share of the noised density lies, by bisection."""
        low, high = torch.full_like(share, -200.0), torch.full_like(share, 200.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            is_below = self.below(middle, sigma) < share
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2

    def carried(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the exact flow takes `x` from one level to another."""
        return self.quantile(self.below(x, sigma), sigma_next)


def bumps(process: Process) -> Mixture:
    """Two overlapping bumps: smooth, so that orders show."""
    return Mixture(process, (0.35, 0.65), (-1.2, 0.7), (0.35, 0.5))


def sharp(process: Process) -> Mixture:
    """Two bumps apart: paths part late and fast."""
    return Mixture(process, (0.35, 0.65), (-1.2, 0.7), (0.2, 0.3))


def gaussian(process: Process) -> Mixture:
    """One bump: every mean and variance on the way is known."""
    return Mixture(process, (1.0,), (0.8,), (0.6,))


def even_shares(count: int) -> Tensor:
    """Quantiles in the middle of `count` even cells, float64 [1, 1, 1, count]."""
    return ((torch.arange(count, dtype=torch.float64) + 0.5) / count).reshape(1, 1, 1, count)
