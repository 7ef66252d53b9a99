"""FreSca (Huang 2025, arXiv:2504.02154): low and high frequencies of the guidance are scaled apart."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates, has_uncond


@dataclass(frozen=True)
class FrequencyScaling:
    """C - U with frequencies below `cutoff` (in places of the spectrum, per axis) times `low`, the others `high`."""

    low: float = 1.0
    high: float = 1.25
    cutoff: int = 20

    def __call__(self, known: Estimates) -> Estimates:
        if not has_uncond(known) or self.low == self.high == 1:
            return known
        spectrum = torch.fft.fftshift(torch.fft.fftn(known.cond - known.uncond, dim=(-2, -1)), dim=(-2, -1))
        height, width = spectrum.shape[-2:]
        scales = torch.full((height, width), self.high, device=spectrum.device, dtype=known.x.dtype)
        rows, columns = (slice(max(size // 2 - self.cutoff, 0), size // 2 + self.cutoff) for size in (height, width))
        scales[rows, columns] = self.low
        changed: Tensor = torch.fft.ifftn(torch.fft.ifftshift(spectrum * scales, dim=(-2, -1)), dim=(-2, -1)).real
        return replace(known, cond=known.uncond + changed)
