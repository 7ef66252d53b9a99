"""The 16-channel autoencoder of SD3: images [B, 3, 8h, 8w] in [-1, 1] <-> latents [B, 16, h, w] in VAE units.

A convolutional autoencoder of the latent diffusion kind (Rombach 2022, arXiv:2112.10752) without the quantisation
convolutions. Parameter names are those of the published files under `first_stage_model.`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_GROUPS = 32
NORM_EPS = 1e-6

Walk = Generator[tuple[nn.GroupNorm, Tensor], Tensor, Tensor]
"""A stretch of the network that asks for each normalisation: it yields the layer and what is to be normalised.

Everything between is local, so that whoever answers may walk strips of a picture, given the whole picture's statistics.
"""


@dataclass(frozen=True)
class VaeShape:
    """Every number that a set of VAE weights fixes. `channels`: per level, from full resolution down."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    latent_channels: int = 16

    @classmethod
    def from_tensors(cls, shapes: Mapping[str, Sequence[int]]) -> "VaeShape":
        """Read the shape off tensor names and sizes in the original layout, without prefix.

        Raises `KeyError` with the tensor's name where one that decides is missing.
        """
        levels = {int(name.split(".")[2]) for name in shapes if name.startswith("encoder.down.")}
        return cls(
            channels=tuple(shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(len(levels))),
            encoder_blocks=_count(shapes, "encoder.down.0.block."),
            decoder_blocks=_count(shapes, "decoder.up.0.block."),
            latent_channels=shapes["decoder.conv_in.weight"][1],
        )

    @property
    def downscale(self) -> int:
        """Pixels per latent position along one side."""
        return int(2 ** (len(self.channels) - 1))


def _count(shapes: Mapping[str, Sequence[int]], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def norm(channels: int) -> nn.GroupNorm:
    """GroupNorm as everywhere in this network: 32 groups, eps 1e-6."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS)


def activated(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient will ask for `x`: full-resolution maps are the memory peak of this network."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, and a shortcut (1x1 where the channels change)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.is_resized = channels_in != channels
        if self.is_resized:
            self.nin_shortcut = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv1(activated(self.norm1(x)))
        hidden = activated(self.norm2(hidden))  # one name for all, so that each step frees the one before
        hidden = self.conv2(hidden)
        hidden += self.nin_shortcut(x) if self.is_resized else x
        return hidden

    def walk(self, x: Tensor) -> Walk:
        """The same, with its normalisations left to whoever walks it."""
        hidden: Tensor = yield self.norm1, x
        hidden = self.conv1(activated(hidden))
        hidden = yield self.norm2, hidden
        hidden = self.conv2(activated(hidden))
        hidden += self.nin_shortcut(x) if self.is_resized else x
        return hidden


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        # fused attention wants channels side by side; else all scores of a large picture are in memory at once
        q, k, v = (part(normed).flatten(2).mT.contiguous().unsqueeze(1) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).unflatten(2, x.shape[-2:])
        result: Tensor = x + self.proj_out(mixed)
        return result


class Middle(nn.Module):
    """Residual block, attention, residual block, at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = SpatialAttention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return result


class Downsample(nn.Module):
    """Halve both sides: one row and column of zeros at the right and bottom, then 3x3 with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Double both sides: nearest neighbour, then 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Level(nn.Module):
    """The blocks of one resolution, then the way to the next: `downsample`, `upsample` or nothing."""

    def __init__(
        self, channels_in: int, channels: int, blocks: int, *, is_halved: bool = False, is_doubled: bool = False
    ) -> None:
        super().__init__()
        widths = [channels_in, *[channels] * blocks]
        self.block = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(widths))
        self.is_halved, self.is_doubled = is_halved, is_doubled
        if is_halved:
            self.downsample = Downsample(channels)
        if is_doubled:
            self.upsample = Upsample(channels)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.is_halved:
            x = self.downsample(x)
        if self.is_doubled:
            x = self.upsample(x)
        return x


class Encoder(nn.Module):
    """Image -> mean and log-variance, stacked: [B, 2 * 16, h, w]."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        first, last = shape.channels[0], shape.channels[-1]
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        widths = [first, *shape.channels]
        self.down = nn.ModuleList(
            Level(a, b, shape.encoder_blocks, is_halved=i < len(shape.channels) - 1)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.mid = Middle(last)
        self.norm_out = norm(last)
        self.conv_out = nn.Conv2d(last, 2 * shape.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(image)
        for level in self.down:
            x = level(x)
        x = self.norm_out(self.mid(x))
        moments: Tensor = self.conv_out(activated(x))
        return moments


class Decoder(nn.Module):
    """Latent -> image. `up.0` is full resolution and runs last, as in the weight files."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        first, last = shape.channels[0], shape.channels[-1]
        self.conv_in = nn.Conv2d(shape.latent_channels, last, 3, padding=1)
        self.mid = Middle(last)
        widths = [*shape.channels, last]
        self.up = nn.ModuleList(
            Level(b, a, shape.decoder_blocks, is_doubled=i > 0) for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norm_out = norm(first)
        self.conv_out = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            x = level(x)
        x = self.norm_out(x)
        image: Tensor = self.conv_out(activated(x))
        return image


class Autoencoder(nn.Module):
    """Encoder and decoder; values are in VAE units, not in the diffusion model's scaled and shifted space."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)

    @property
    def downscale(self) -> int:
        """Pixels per latent position along one side."""
        return self.shape.downscale

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image [B, 3, H, W] in [-1, 1] -> mean and log-variance (clamped to -30..20), each [B, 16, H/8, W/8]."""
        mean, log_variance = self.encoder(image).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [B, 16, h, w] -> image [B, 3, 8h, 8w], about [-1, 1], not clamped."""
        image: Tensor = self.decoder(latent)
        return image
