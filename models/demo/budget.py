"""Training against the clock: a learning rate that falls to zero when the time is up, a moving average, a log line."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger("demo")


@dataclass
class Clock:
    """Fraction of a time budget used; `spent_s` carries over when training resumes."""

    minutes: float
    spent_s: float = 0.0

    def fractions(self) -> Iterator[float]:
        """Yield 0..1 until the budget is used up."""
        started = time.monotonic() - self.spent_s
        while (fraction := (time.monotonic() - started) / (60 * self.minutes)) < 1:
            yield fraction
            self.spent_s = time.monotonic() - started


def learning_rate(peak: float, fraction: float, step: int, warmup: int = 100) -> float:
    """Linear warm-up over `warmup` steps, constant to half of the budget, then a cosine down to 2 %."""
    fall = 0.5 * (1 + math.cos(math.pi * max(0.0, fraction - 0.5) / 0.5))
    return peak * min(1.0, (step + 1) / warmup) * max(0.02, fall)


def update_average(average: dict[str, Tensor], module: nn.Module, step: int, decay: float = 0.999) -> None:
    """Exponential moving average of all weights, with a shorter memory at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, weight in module.state_dict().items():
            average.setdefault(name, weight.clone()).lerp_(weight, 1 - decay)


def save(path: Path, state: dict[str, object]) -> None:
    """Write, then rename: an interrupted save leaves the last good one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    torch.save(state, fresh)
    fresh.replace(path)
