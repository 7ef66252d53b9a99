"""Inpainting, as a wrapper round a denoiser: 1 in the mask is made anew, 0 is kept, values between are blended."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.sampling.denoiser import Beginning, Denoiser, Requests, requests_of, self_answered
from sigmagraph.engine.sampling.solver import Prediction

OUTSIDE = 1e-3  # what resizing and rounding may leave beyond 0 and 1
MaskRule = Callable[[Tensor, float], Tensor]
"""The mask, and a noise level, to the mask there."""


@dataclass(frozen=True)
class DifferentialMask:
    """Differential diffusion (Levin 2023, arXiv:2306.00950): the higher its value, the earlier a place is made anew.

    `share` is how much of the way is left at a level: places of at least that value are made anew, the others kept.
    `strength` below 1 mixes the mask itself in.
    """

    share: Callable[[float], float]
    strength: float = 1.0

    def __call__(self, mask: Tensor, sigma: float) -> Tensor:
        hard = (mask >= self.share(sigma)).to(mask.dtype)
        return hard * self.strength + mask * (1 - self.strength) if 0 < self.strength < 1 else hard


@dataclass(frozen=True)
class Masked:
    """The model sees the kept region of `latent` at the right noise level, and its answer there is `latent` itself.

    `changing` gives the mask of a noise level where it depends on that (differential diffusion).
    """

    denoiser: Denoiser
    mask: Tensor
    latent: Tensor
    noised: Callable[[float], Tensor]
    changing: MaskRule | None = None

    def __call__(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Prediction:
        return self_answered(self.requests(x, sigma, needs_uncond))

    def requests(self, x: Tensor, sigma: float, needs_uncond: bool = False) -> Requests:
        """What the guidance within asks, if it can say so."""
        return self._kept(
            x, sigma, (yield from requests_of(self.denoiser, self.blended(x, sigma), sigma, needs_uncond))
        )

    def _mask(self, sigma: float) -> Tensor:
        return self.mask if self.changing is None else self.changing(self.mask, sigma)

    def _kept(self, x: Tensor, sigma: float, prediction: Prediction) -> Prediction:
        if prediction.denoised.shape != x.shape:
            return prediction  # for the run to refuse, which knows the step: blended, it might get the right shape
        mask = self._mask(sigma)
        denoised = prediction.denoised * mask + self.latent * (1.0 - mask)
        return Prediction(denoised, prediction.uncond, prediction.memory)

    def begin(self) -> "Masked":
        """The same for one run."""
        return replace(self, denoiser=self.denoiser.begin()) if isinstance(self.denoiser, Beginning) else self

    def remember(self, memory: Tensor) -> None:
        """Hand on what the guidance within carried."""
        if isinstance(self.denoiser, Beginning):
            self.denoiser.remember(memory)

    def blended(self, x: Tensor, sigma: float) -> Tensor:
        """`x` where it is made anew, the noised latent where it is kept."""
        if x.shape != self.latent.shape:
            sizes = f"{tuple(x.shape)} beside {tuple(self.latent.shape)}"
            raise BadValue("state and masked latent", sizes, "one shape: a sampler that changes sizes takes no mask")
        mask = self._mask(sigma)
        return x * mask + self.noised(sigma) * (1.0 - mask)


def fitted(mask: Tensor, latent: Tensor) -> Tensor:
    """A mask [..., H', W'] resized bilinearly to the latent's [B, ..., H, W], repeated over all but its last axes."""
    if not 2 <= mask.ndim <= 4 or (mask.ndim == 4 and mask.shape[1] != 1) or mask.numel() == 0 or latent.ndim < 3:
        raise BadValue("mask", tuple(mask.shape), "[H, W], [B, H, W] or [B, 1, H, W], of a latent with such axes")
    low, high = (float(end) for end in mask.aminmax())
    if not (low >= -OUTSIDE and high <= 1 + OUTSIDE):
        raise BadValue("mask", f"values from {low:.4g} to {high:.4g}", "values from 0 (keep) to 1 (make anew)")
    one = mask.reshape(-1, 1, *mask.shape[-2:]).to(latent.device, torch.float32)
    one = torch.nn.functional.interpolate(one, size=latent.shape[-2:], mode="bilinear")
    copies = -(-latent.shape[0] // one.shape[0])
    one = one.repeat(copies, 1, 1, 1)[: latent.shape[0]].to(latent.dtype)
    return one.reshape(-1, *[1] * (latent.ndim - 3), *latent.shape[-2:]).expand_as(latent)
