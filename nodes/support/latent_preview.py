"""What a sampling node reports to be shown: the estimate of the clean latent, and whose latent it is."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

__all__ = ["LatentPreview"]


@dataclass(frozen=True, slots=True)
class LatentPreview:
    """A latent [B, C, h, w] in model space; `weights` is the file of the model that made it, if it has one."""

    latent: Tensor
    weights: Path | None
