"""Epsilon scaling (Ning 2024, arXiv:2308.15321): predicted noise is made smaller, against exposure bias."""

from dataclasses import dataclass

from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates


@dataclass(frozen=True)
class EpsilonScaling:
    """x - D is divided by `factor`."""

    factor: float = 1.005

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        return guided if self.factor == 1 else known.x - (known.x - guided) / self.factor
