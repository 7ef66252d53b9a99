"""The tiny decoder of previews: a latent as a picture a quarter of the real one's side, in milliseconds.

An autoencoder with group norms mixes its whole picture, so a map of each place by itself cannot find its colours. Three
convolutions see the neighbours, and the latent's means and spreads over the picture scale and shift what they see.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PreviewDecoder"]

SPREAD = 1e-4  # below this a channel counts as constant


class PreviewDecoder(nn.Module):
    """Latents [B, C, h, w] in model space -> colours [B, 3, enlarges h, enlarges w], 0..1 but for overshoots."""

    def __init__(self, channels: int = 16, width: int = 32, enlarges: int = 2) -> None:
        super().__init__()
        self.enlarges = enlarges
        self.mean = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.std = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.whole = nn.Linear(2 * channels, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3 * enlarges**2, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """The colours."""
        x = (latent - self.mean[:, None, None]) / self.std[:, None, None]
        spread = (x.var((2, 3), unbiased=False) + SPREAD).sqrt()
        scale, shift = self.whole(torch.cat([x.mean((2, 3)), spread], 1))[:, :, None, None].chunk(2, 1)
        seen = F.silu(self.first(x) * (1 + scale) + shift)
        seen = seen + F.silu(self.second(seen))
        return F.pixel_shuffle(self.last(seen), self.enlarges)
