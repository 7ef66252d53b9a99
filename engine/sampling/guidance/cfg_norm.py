"""CFGNorm: guidance lengthens the estimate's vectors, and this takes the excess back (Qwen-Image's sampling code)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates


@dataclass(frozen=True)
class NormBound:
    """Scale the guided vector of each place down to the conditional one's length; then everything by `strength`."""

    strength: float = 1.0

    def __call__(self, guided: Tensor, known: Estimates) -> Tensor:
        wanted: Tensor = torch.linalg.vector_norm(known.cond, dim=1, keepdim=True)
        found: Tensor = torch.linalg.vector_norm(guided, dim=1, keepdim=True)
        return guided * (wanted / (found + 1e-8)).clamp(0.0, 1.0) * self.strength
