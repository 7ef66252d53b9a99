"""Tangential damping (Kwon 2025, arXiv:2503.18137).

Of the unconditional score only the part is kept that lies along the direction both scores share: the first right
singular vector of the two. What is tangential to it pulls samples off the data.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sigmagraph.engine.sampling.exact import exact
from sigmagraph.engine.sampling.guidance.cfg import Estimates, has_uncond

SMALLEST = 1e-300  # of a squared length: no direction


@dataclass(frozen=True)
class TangentialDamping:
    """x - U becomes its projection onto the main direction of x - C and x - U, per image.

    That is the first right singular vector, through the 2 x 2 matrix of products; in float64.
    """

    def __call__(self, known: Estimates) -> Estimates:
        if not has_uncond(known):
            return known
        x = exact(known.x)  # the projection is taken from a state whose noise is large beside it
        scores = torch.stack([x - known.cond.to(x.device), x - known.uncond.to(x.device)], dim=1).flatten(2)
        main: Tensor = torch.linalg.eigh(scores @ scores.transpose(1, 2)).eigenvectors[:, None, :, -1]
        direction = (main @ scores)[:, 0]
        power = (direction * direction).sum(dim=1, keepdim=True).clamp(min=SMALLEST)
        share = (scores[:, 1] * direction).sum(dim=1, keepdim=True) / power
        return replace(
            known, uncond=(x - (direction * share).reshape(x.shape)).to(known.uncond.dtype).to(known.x.device)
        )
