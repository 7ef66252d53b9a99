"""What text encoders hand to the diffusion model: token features and one pooled vector per image."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue


@dataclass(frozen=True, eq=False, slots=True)
class Conditioning:
    """Immutable: context [B, L, C] and pooled [B, P], float32. B is 1, or one entry per image of the batch.

    It acts from `start` to `end`, shares of the way from noise (0) to image (1). `further` are entries beside this
    one, each with a time of its own: the model is asked about every entry that acts, and the answers are averaged.
    """

    context: Tensor
    pooled: Tensor
    start: float = 0.0
    end: float = 1.0
    further: tuple["Conditioning", ...] = ()

    @property
    def entries(self) -> tuple["Conditioning", ...]:
        """This one alone, then those beside it."""
        return (replace(self, further=()), *self.further) if self.further else (self,)

    def beside(self, other: "Conditioning") -> "Conditioning":
        """The entries of both."""
        return replace(self, further=(*self.further, *other.entries))

    def within(self, start: float, end: float) -> "Conditioning":
        """The same, every entry acting between these shares of the way."""
        return self._each(lambda one: replace(one, start=start, end=end))

    def acts(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> bool:
        """Whether this entry has a say at a noise level; both ends of its time count."""
        begins = self.start <= 0 or sigma <= percent_to_sigma(self.start)
        return begins and (self.end >= 1 or sigma >= percent_to_sigma(self.end))

    def zeroed(self) -> "Conditioning":
        """Zeros of the same shapes: not the same as the encoding of an empty text."""
        return self._each(
            lambda one: replace(one, context=torch.zeros_like(one.context), pooled=torch.zeros_like(one.pooled))
        )

    def followed_by(self, other: "Conditioning") -> "Conditioning":
        """The tokens of every entry and then of `other`'s first; the pooled vectors of these."""
        if self.context.shape[-1] != other.context.shape[-1]:
            widths = f"{self.context.shape[-1]} and {other.context.shape[-1]}"
            raise BadValue("conditioning", widths, "two conditionings of the same width")
        return self._each(lambda one: replace(one, context=torch.cat([one.context, other.context], dim=1)))

    def mixed(self, other: "Conditioning", strength: float) -> "Conditioning":
        """`strength` of every entry and the rest of `other`'s first, cut or filled with zeros to the entry's length."""

        def mix(one: Conditioning) -> Conditioning:
            context = torch.zeros_like(one.context)
            context[:, : other.context.shape[1]] = other.context[:, : one.context.shape[1]]
            context = torch.lerp(context, one.context, strength)
            return replace(one, context=context, pooled=torch.lerp(other.pooled, one.pooled, strength))

        return self._each(mix)

    def for_batch(self, batch: int, device: torch.device) -> "Conditioning":
        """One row per image on `device`: rows are repeated in turn, or cut, to `batch`."""
        rows = torch.arange(batch, device=self.context.device) % self.context.shape[0]
        context, pooled = self.context[rows].to(device), self.pooled[rows % self.pooled.shape[0]].to(device)
        return replace(self, context=context, pooled=pooled)

    def _each(self, change: Callable[["Conditioning"], "Conditioning"]) -> "Conditioning":
        """Every entry changed."""
        first, *rest = (change(one) for one in self.entries)
        return replace(first, further=tuple(rest))
