"""TAESD3, a small autoencoder for SD3's latents (Bohan 2023): nearly the pictures of the large one, far sooner.

Parameter names are those of diffusers' `AutoencoderTiny`. The network works in the diffusion model's space; the module
takes and gives VAE units like every autoencoder here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ENCODER_BLOCKS, DECODER_BLOCKS = (1, 3, 3, 3), (3, 3, 3, 1)
LARGEST = 3.0  # latents are squeezed smoothly into -3..3 before they are decoded


@dataclass(frozen=True)
class TinyShape:
    """What a set of weights fixes, and how VAE units become the diffusion model's: (latent - shift) scale."""

    width: int = 64
    latent_channels: int = 16
    scale: float = 1.5305
    shift: float = 0.0609

    @classmethod
    def from_tensors(cls, shapes: Mapping[str, Sequence[int]]) -> "TinyShape":
        """Read off tensor sizes. Raises `KeyError` with the name of one that is missing."""
        width, channels, *_ = shapes["decoder.layers.0.weight"]
        return cls(width, channels)


class TinyBlock(nn.Module):
    """Three 3x3 convolutions beside the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class LayerStack(nn.Module):
    """Layers one after another, under the name `layers`."""

    def __init__(self, layers: Iterator[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


def encoder_layers(shape: TinyShape) -> Iterator[nn.Module]:
    """Picture [B, 3, H, W] in 0..1 to latent: each group but the first begins by halving both sides."""
    for group, blocks in enumerate(ENCODER_BLOCKS):
        if group == 0:
            yield nn.Conv2d(3, shape.width, 3, padding=1)
        else:
            yield nn.Conv2d(shape.width, shape.width, 3, padding=1, stride=2, bias=False)
        yield from (TinyBlock(shape.width) for _ in range(blocks))
    yield nn.Conv2d(shape.width, shape.latent_channels, 3, padding=1)


def decoder_layers(shape: TinyShape) -> Iterator[nn.Module]:
    """Latent to picture: each group but the last ends by doubling both sides."""
    yield nn.Conv2d(shape.latent_channels, shape.width, 3, padding=1)
    yield nn.ReLU()
    last = len(DECODER_BLOCKS) - 1
    for group, blocks in enumerate(DECODER_BLOCKS):
        yield from (TinyBlock(shape.width) for _ in range(blocks))
        if group < last:
            yield nn.Upsample(scale_factor=2)
            yield nn.Conv2d(shape.width, shape.width, 3, padding=1, bias=False)
    yield nn.Conv2d(shape.width, 3, 3, padding=1)


class TinyAutoencoder(nn.Module):
    """Encoder and decoder with the interface of the large autoencoder."""

    downscale = 8

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder, self.decoder = LayerStack(encoder_layers(shape)), LayerStack(decoder_layers(shape))

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image [B, 3, H, W] in [-1, 1] -> latent [B, 16, H/8, W/8] in VAE units, and no variance."""
        latent = self.encoder((image + 1) / 2) / self.shape.scale + self.shape.shift
        return latent, torch.full_like(latent, -torch.inf)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent in VAE units -> image [B, 3, 8h, 8w], about [-1, 1], not clamped."""
        fed = (latent - self.shape.shift) * self.shape.scale
        image: Tensor = self.decoder(LARGEST * torch.tanh(fed / LARGEST)) * 2 - 1
        return image


class PixelSpace(nn.Module):
    """No autoencoder: a picture is its own latent, three channels in [-1, 1]."""

    downscale = 1

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The picture itself, and no variance."""
        return image, torch.full_like(image, -torch.inf)

    def decode(self, latent: Tensor) -> Tensor:
        """The latent itself."""
        return latent
