"""Latents: blank ones, and the way between them and pictures."""

from typing import Annotated

import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Range, Tooltip, node
from sigmagraph.engine.models.arch.tiles import Tiling
from sigmagraph.nodes.support.types import NO_VAE, BatchSize, Image, Latent, LatentValue, Vae, present

__all__ = ["NODES"]

LATENT_POSITION = 8  # pixels a side
MAX_ELEMENTS = 2 << 30  # 8 GiB in float32

Pixels8 = Annotated[int, Range(16, 16384, step=8, strict=True), Tooltip("In pixels, a multiple of 8.")]
Pixels16 = Annotated[int, Range(16, 16384, step=16, grid=8), Tooltip("In pixels, a multiple of 8.")]

Overlap = Annotated[int, Range(0, 4096, step=32), Tooltip("How far tiles reach into each other, in pixels.")]
Frames = Annotated[int, Range(8, 4096, step=4), Tooltip("Of videos; pictures have one frame.")]
FrameOverlap = Annotated[int, Range(4, 4096, step=4), Tooltip("Of videos; pictures have one frame.")]


@node("EmptyLatentImage", category="latent", display_name="Empty Latent Image")
def empty_latent(*, width: Pixels8 = 512, height: Pixels8 = 512, batch_size: BatchSize = 1) -> Latent:
    """A blank latent of 4 channels: zeros [batch, 4, height / 8, width / 8]; the sampler fits it to the model."""
    return _blank(batch_size, 4, height, width)


@node("EmptySD3LatentImage", category="latent/sd3")
def empty_sd3_latent(*, width: Pixels16 = 1024, height: Pixels16 = 1024, batch_size: BatchSize = 1) -> Latent:
    """A blank latent for the SD3 family: zeros [batch, 16, height / 8, width / 8]."""
    return _blank(batch_size, 16, height, width)


@node("VAEDecode", category="latent", display_name="VAE Decode", lane="device")
def vae_decode(*, samples: Latent, vae: Vae) -> Image:
    """Latents to pictures."""
    return present(vae, "vae", NO_VAE).decode(samples.samples)


@node("VAEEncode", category="latent", display_name="VAE Encode", lane="device")
def vae_encode(*, pixels: Image, vae: Vae) -> Latent:
    """Pictures to latents: the mean of the encoder's distribution; sides are cropped to multiples of 8, centred."""
    return LatentValue(present(vae, "vae", NO_VAE).encode(pixels[..., :3]))


@node("VAEDecodeTiled", category="_for_testing", display_name="VAE Decode (Tiled)", lane="device")
def vae_decode_tiled(
    *,
    samples: Latent,
    vae: Vae,
    tile_size: Annotated[int, Range(64, 4096, step=32), Tooltip("In pixels.")] = 512,
    overlap: Overlap = 64,
    temporal_size: Frames = 64,
    temporal_overlap: FrameOverlap = 8,
) -> Image:
    """Latents to pictures, tile by tile, for graphs made with ComfyUI; an overlap above a quarter of a tile is that.

    `VAE Decode` itself works in strips where memory is short, and gives the picture of the whole.
    """
    overlap = min(overlap, tile_size // 4)
    tiling = Tiling(tile_size // LATENT_POSITION, overlap // LATENT_POSITION)
    return present(vae, "vae", NO_VAE).decode_in_tiles(samples.samples, tiling)


@node("VAEEncodeTiled", category="_for_testing", display_name="VAE Encode (Tiled)", lane="device")
def vae_encode_tiled(
    *,
    pixels: Image,
    vae: Vae,
    tile_size: Annotated[int, Range(64, 4096, step=64), Tooltip("In pixels.")] = 512,
    overlap: Overlap = 64,
    temporal_size: Frames = 64,
    temporal_overlap: FrameOverlap = 8,
) -> Latent:
    """Pictures to latents, tile by tile, for graphs made with ComfyUI."""
    if overlap >= tile_size // 2:
        raise BadValue("overlap", overlap, f"below {tile_size // 2}, half of tile_size: tiles would not advance")
    return LatentValue(present(vae, "vae", NO_VAE).encode_in_tiles(pixels[..., :3], Tiling(tile_size, overlap)))


def _blank(batch: int, channels: int, height: int, width: int) -> LatentValue:
    shape = (batch, channels, height // 8, width // 8)
    if batch * channels * (height // 8) * (width // 8) > MAX_ELEMENTS:
        raise BadValue(
            "batch_size", f"{batch} of {width} x {height}", f"at most {MAX_ELEMENTS:,} latent values at once"
        )
    return LatentValue(torch.zeros(shape))


NODES = (empty_latent, empty_sd3_latent, vae_decode, vae_encode, vae_decode_tiled, vae_encode_tiled)
