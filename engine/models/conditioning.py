"""What text encoders hand to the diffusion model: token features and one pooled vector per image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import BadValue


@dataclass(frozen=True, eq=False, slots=True)
class Conditioning:
    """Immutable: context [B, L, C] and pooled [B, P], float32. B is 1, or one entry per image of the batch."""

    context: Tensor
    pooled: Tensor

    def zeroed(self) -> "Conditioning":
        """Zeros of the same shapes: not the same as the encoding of an empty text."""
        return Conditioning(torch.zeros_like(self.context), torch.zeros_like(self.pooled))

    def followed_by(self, other: "Conditioning") -> "Conditioning":
        """The tokens of both, one after the other; the pooled vector of the first."""
        if self.context.shape[-1] != other.context.shape[-1]:
            widths = f"{self.context.shape[-1]} and {other.context.shape[-1]}"
            raise BadValue("conditioning", widths, "two conditionings of the same width")
        return Conditioning(torch.cat([self.context, other.context], dim=1), self.pooled)

    def mixed(self, other: "Conditioning", strength: float) -> "Conditioning":
        """`strength` of this one and the rest of `other`; `other` is cut or filled with zeros to this length."""
        length = self.context.shape[1]
        context = torch.zeros_like(self.context)
        context[:, : other.context.shape[1]] = other.context[:, :length]
        return Conditioning(
            torch.lerp(context, self.context, strength), torch.lerp(other.pooled, self.pooled, strength)
        )

    def for_batch(self, batch: int, device: torch.device) -> "Conditioning":
        """One row per image on `device`: rows are repeated in turn, or cut, to `batch`."""
        rows = torch.arange(batch, device=self.context.device) % self.context.shape[0]
        return Conditioning(self.context[rows].to(device), self.pooled[rows % self.pooled.shape[0]].to(device))
