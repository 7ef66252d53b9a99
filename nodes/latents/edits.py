"""Latents changed without sampling: batches, sizes, places, sums and masks."""

from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Options, Output, Range, Tooltip, node
from sigmagraph.engine.sampling.resize import METHODS, resized
from sigmagraph.nodes.latents.composite import cycled
from sigmagraph.nodes.support.types import NO_VAE, Conditioning, Image, Latent, LatentValue, Mask, Vae, present

__all__ = ["NODES"]

Method = Annotated[str, Options(list(METHODS))]
Place = Annotated[int, Range(0, 16384, step=8)]
Share = Annotated[float, Range(0.0, 1.0, step=0.01)]
CropSide = Annotated[int, Range(64, 16384, step=8)]
TURNS = {"none": 0, "90 degrees": 1, "180 degrees": 2, "270 degrees": 3}
FLIPS = {"x-axis: vertically": -2, "y-axis: horizontally": -1}


@node("SetLatentNoiseMask", category="latent/inpaint", display_name="Set Latent Noise Mask")
def set_latent_noise_mask(*, samples: Latent, mask: Mask) -> Latent:
    """Say where the latent is to be made anew: 1 in the mask; 0 is kept."""
    return replace(samples, noise_mask=mask.reshape(-1, *mask.shape[-2:]))


@node("VAEEncodeForInpaint", category="latent/inpaint", display_name="VAE Encode (for Inpainting)", lane="device")
def vae_encode_for_inpaint(
    *, pixels: Image, vae: Vae, mask: Mask, grow_mask_by: Annotated[int, Range(0, 64, step=1)] = 6
) -> Latent:
    """Encode with the masked region greyed out, and say that it is to be made anew, grown by some pixels."""
    greyed, drawn = _greyed(pixels, mask)
    latent = present(vae, "vae", NO_VAE).encode(greyed)
    grown = F.max_pool2d(drawn.round(), grow_mask_by, 1, grow_mask_by // 2) if grow_mask_by else drawn
    return LatentValue(latent, noise_mask=grown.round()[:, 0, : greyed.shape[1], : greyed.shape[2]])


@node(
    "InpaintModelConditioning",
    category="conditioning/inpaint",
    lane="device",
    outputs=[Output("CONDITIONING", "positive"), Output("CONDITIONING", "negative"), Output("LATENT", "latent")],
)
def inpaint_model_conditioning(
    *,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    pixels: Image,
    mask: Mask,
    noise_mask: Annotated[bool, Tooltip("Whether to make anew what the mask covers, and nothing else.")] = True,
) -> tuple[Conditioning, Conditioning, Latent]:
    """Encode a picture, and give both sides the mask and the picture with its region greyed out.

    Models made for inpainting read them; others read the latent and its mask.
    """
    greyed, drawn = _greyed(pixels, mask)
    encode = present(vae, "vae", NO_VAE).encode
    extra = {"concat_latent_image": encode(greyed), "concat_mask": drawn}
    latent = LatentValue(encode(pixels), drawn[:, 0] if noise_mask else None)
    return positive.with_extra(**extra), negative.with_extra(**extra), latent


def _greyed(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [B, H, W, 3] with the masked region grey, and the mask [B, 1, H, W], both cut to multiples of 8."""
    height, width = (side // 8 * 8 for side in pixels.shape[1:3])
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    image = pixels[:, top : top + height, left : left + width, :3]
    drawn = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=pixels.shape[1:3], mode="bilinear")
    drawn = drawn[..., top : top + height, left : left + width]
    if len(drawn) not in (1, len(image)):
        raise BadValue("mask", f"{len(drawn)} masks", f"one, or {len(image)} as there are pictures")
    kept = 1.0 - drawn.round().movedim(1, -1)
    return (image - 0.5) * kept + 0.5, drawn


@node("LatentFromBatch", category="latent/batch", display_name="Latent From Batch")
def latent_from_batch(
    *, samples: Latent, batch_index: Annotated[int, Range(0, 63)] = 0, length: Annotated[int, Range(1, 64)] = 1
) -> Latent:
    """Some latents of a batch; each remembers its place, so that it gets the same noise."""
    batch = len(samples.samples)
    first = min(batch_index, batch - 1)
    chosen = slice(first, min(first + length, batch))
    places = samples.batch_index or tuple(range(batch))
    mask = samples.noise_mask
    if mask is not None and len(mask) > 1:
        mask = cycled(mask, batch)[chosen]
    return LatentValue(samples.samples[chosen], mask, places[chosen])


@node("RepeatLatentBatch", category="latent/batch", display_name="Repeat Latent Batch")
def repeat_latent_batch(*, samples: Latent, amount: Annotated[int, Range(1, 64)] = 1) -> Latent:
    """The batch several times over; places, where they are known, go on behind the last."""
    mask = samples.noise_mask
    if mask is not None and len(mask) > 1:
        mask = cycled(mask, len(samples.samples)).repeat(amount, 1, 1)
    places = samples.batch_index
    if places is not None:
        span = max(places) - min(places) + 1
        places = tuple(place + turn * span for turn in range(amount) for place in places)
    return LatentValue(samples.samples.repeat(amount, 1, 1, 1), mask, places)


@node("LatentBatch", category="latent/batch")
def latent_batch(*, samples1: Latent, samples2: Latent) -> Latent:
    """Two batches as one; the second takes the first one's size."""
    first, second = samples1.samples, samples2.samples
    _check_channels(first, second)
    if first.shape[1:] != second.shape[1:]:
        second = resized(second, first.shape[-1], first.shape[-2], "bilinear", crop=True)
    ranges = tuple(latent.batch_index or tuple(range(len(latent.samples))) for latent in (samples1, samples2))
    return LatentValue(torch.cat([first, second]), samples1.noise_mask, ranges[0] + ranges[1])


@node("LatentBatchSeedBehavior", category="latent/advanced")
def latent_batch_seed_behavior(
    *, samples: Latent, seed_behavior: Annotated[str, Options(["random", "fixed"], named=True)] = "fixed"
) -> Latent:
    """Whether the images of a batch get different noise or all the same."""
    if seed_behavior == "random":
        return replace(samples, batch_index=None)
    place = samples.batch_index[0] if samples.batch_index else 0
    return replace(samples, batch_index=(place,) * len(samples.samples))


@node("LatentUpscale", category="latent", revision=2, display_name="Upscale Latent")
def latent_upscale(
    *,
    samples: Latent,
    upscale_method: Method = "nearest-exact",
    width: Place = 512,
    height: Place = 512,
    crop: Annotated[str, Options(["disabled", "center"])] = "disabled",
) -> Latent:
    """Resize to a size in pixels; 0 for one side keeps the proportions, 0 for both changes nothing."""
    if width == 0 and height == 0:
        return samples
    old_height, old_width = samples.samples.shape[-2:]
    width, height = (max(64, side) if side else 0 for side in (width, height))  # the least comes before proportions
    new_width = width or max(64, round(old_width * height / old_height))
    new_height = height or max(64, round(old_height * width / old_width))
    result = resized(samples.samples, new_width // 8, new_height // 8, upscale_method, crop=crop == "center")
    return samples.with_samples(result)


@node("LatentUpscaleBy", category="latent", display_name="Upscale Latent By")
def latent_upscale_by(
    *,
    samples: Latent,
    upscale_method: Method = "nearest-exact",
    scale_by: Annotated[float, Range(0.01, 8.0, step=0.01)] = 1.5,
) -> Latent:
    """Resize by a factor."""
    height, width = (max(1, round(side * scale_by)) for side in samples.samples.shape[-2:])
    return samples.with_samples(resized(samples.samples, width, height, upscale_method))


@node("LatentFlip", category="latent/transform", display_name="Flip Latent")
def latent_flip(*, samples: Latent, flip_method: Annotated[str, Options(list(FLIPS))] = "x-axis: vertically") -> Latent:
    """Mirror the latent."""
    return samples.with_samples(samples.samples.flip(FLIPS[flip_method]))


@node("LatentRotate", category="latent/transform", display_name="Rotate Latent")
def latent_rotate(*, samples: Latent, rotation: Annotated[str, Options(list(TURNS))] = "none") -> Latent:
    """Turn the latent clockwise."""
    return samples.with_samples(torch.rot90(samples.samples, k=TURNS[rotation], dims=(3, 2)))


@node("LatentCrop", category="latent/transform", display_name="Crop Latent")
def latent_crop(
    *, samples: Latent, width: CropSide = 512, height: CropSide = 512, x: Place = 0, y: Place = 0
) -> Latent:
    """A part of the latent, in pixels; a place too far right or down is moved back by a corner of 64 pixels."""
    left, top = min(x // 8, samples.samples.shape[3] - 8), min(y // 8, samples.samples.shape[2] - 8)
    if min(left, top) < 0:
        raise BadValue("samples", list(samples.samples.shape), "a latent of at least 64 x 64 pixels")
    return samples.with_samples(samples.samples[..., top : top + height // 8, left : left + width // 8])


@node("LatentAdd", category="latent/advanced")
def latent_add(*, samples1: Latent, samples2: Latent) -> Latent:
    """The sum; the second is brought to the first one's size and batch."""
    return samples1.with_samples(samples1.samples + _alike(samples1, samples2))


@node("LatentSubtract", category="latent/advanced")
def latent_subtract(*, samples1: Latent, samples2: Latent) -> Latent:
    """The difference; the second is brought to the first one's size and batch."""
    return samples1.with_samples(samples1.samples - _alike(samples1, samples2))


@node("LatentMultiply", category="latent/advanced")
def latent_multiply(*, samples: Latent, multiplier: Annotated[float, Range(-10.0, 10.0, step=0.01)] = 1.0) -> Latent:
    """Every value times a number."""
    return samples.with_samples(samples.samples * multiplier)


@node("LatentInterpolate", category="latent/advanced")
def latent_interpolate(*, samples1: Latent, samples2: Latent, ratio: Share = 1.0) -> Latent:
    """Between two latents: directions are mixed, and lengths apart from them; 1 is the first."""
    first, second = samples1.samples, _alike(samples1, samples2)
    lengths = [torch.linalg.vector_norm(latent, dim=1, keepdim=True) for latent in (first, second)]
    one, two = (torch.nan_to_num(latent / length) for latent, length in zip((first, second), lengths, strict=True))
    mixed = one * ratio + two * (1.0 - ratio)
    direction = torch.nan_to_num(mixed / torch.linalg.vector_norm(mixed, dim=1, keepdim=True))
    return samples1.with_samples(direction * (lengths[0] * ratio + lengths[1] * (1.0 - ratio)))


@node("LatentBlend", category="_for_testing", display_name="Latent Blend")
def latent_blend(*, samples1: Latent, samples2: Latent, blend_factor: Share = 0.5) -> Latent:
    """A weighted mean; 1 is the first."""
    first, second = samples1.samples, samples2.samples
    _check_channels(first, second)
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise BadValue("samples2", f"{len(second)} latents", f"one latent, or {len(first)} as samples1 has")
    if first.shape != second.shape:
        second = resized(second, first.shape[-1], first.shape[-2], "bicubic", crop=True)
    return samples1.with_samples(first * blend_factor + second * (1 - blend_factor))


def _alike(first: LatentValue, second: LatentValue) -> Tensor:
    """The second's samples with the first one's size and count."""
    samples, shape = second.samples, first.samples.shape
    _check_channels(first.samples, samples)
    if samples.shape[1:] != shape[1:]:
        samples = resized(samples, shape[-1], shape[-2], "bilinear", crop=True)
    return cycled(samples, shape[0])


def _check_channels(first: Tensor, second: Tensor) -> None:
    """Latents of one family have the same channels, and time or none."""
    if first.ndim != second.ndim:
        raise BadValue("samples2", list(second.shape), f"{first.ndim} axes, as samples1 {list(first.shape)} has")
    if second.shape[1] != first.shape[1]:
        raise BadValue("samples2", f"{second.shape[1]} channels", f"{first.shape[1]} channels, as samples1 has")


NODES = (
    set_latent_noise_mask,
    vae_encode_for_inpaint,
    inpaint_model_conditioning,
    latent_from_batch,
    repeat_latent_batch,
    latent_batch,
    latent_batch_seed_behavior,
    latent_upscale,
    latent_upscale_by,
    latent_flip,
    latent_rotate,
    latent_crop,
    latent_add,
    latent_subtract,
    latent_multiply,
    latent_interpolate,
    latent_blend,
)
