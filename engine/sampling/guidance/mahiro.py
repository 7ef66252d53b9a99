"""Mahiro: guidance that leans on the positive prompt's direction where both prompts point the same way."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates, has_uncond


@dataclass(frozen=True)
class Mahiro:
    """A mean of the guided estimate and w C, by how alike w U and their middle are (square roots taken first)."""

    scale: float

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        leap = known.cond * self.scale
        away = known.uncond * self.scale if has_uncond(known) else torch.zeros_like(leap)
        middle = (leap + guided) / 2
        alike = F.cosine_similarity(_rooted(away), _rooted(middle)).mean()
        share = 2 * (alike + 1)
        return (share * guided + (4 - share) * leap) / 4


def _rooted(values: Tensor) -> Tensor:
    return values.abs().sqrt() * values.sign()
