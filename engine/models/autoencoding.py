"""One picture through an autoencoder: whole where memory allows, else in strips; in float32 where 16 bits overflow.

Strips give the same picture without seams (arch/strips.py). ComfyUI's tiles, which its nodes of that name make, do not:
they are here because saved graphs ask for them.
"""

import copy
import gc
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sigmagraph.engine.errors import OutOfMemory, is_out_of_memory
from sigmagraph.engine.models.arch import strips
from sigmagraph.engine.models.arch.strips import Keeping
from sigmagraph.engine.models.arch.tiles import Tiling, blended
from sigmagraph.engine.models.arch.tiny_vae import PixelSpace, TinyAutoencoder
from sigmagraph.engine.models.arch.vae import Autoencoder, VaeShape
from sigmagraph.engine.models.memory.device import available_bytes, give_back
from sigmagraph.engine.units import bytes_in_words

log = logging.getLogger(__name__)
Coder = Autoencoder | TinyAutoencoder | PixelSpace
"""What makes latents of pictures and pictures of latents; only the first is so large that it may need strips."""
Way = Callable[[Autoencoder, Tensor, Keeping], Tensor]

# Elements that live at once above weights and input, per pixel and in one strip, counted at the published widths.
NEEDS: dict[Way, dict[Keeping, tuple[float, float]]] = {
    strips.decoded: {Keeping.WHOLE: (705, 0), Keeping.BLOCKS: (194, 7e7), Keeping.LEVELS: (101, 7e7)},
    strips.encoded: {Keeping.WHOLE: (515, 0), Keeping.BLOCKS: (165, 6e7), Keeping.LEVELS: (58, 7e7)},
}
# The same of the most frugal way, without which no picture was ever made: elements per pixel, in strips per pixel, and
# in strips at most. Maps that have to be there at once, and less than strips take.
LEAST: dict[Way, tuple[float, float, float]] = {strips.decoded: (96, 45, 4e7), strips.encoded: (64, 15, 2e7)}
UNSURE_BYTES = 64 * 1024 * 1024  # more than what is free may be had: of the allocator's own, which nobody counts
PUBLISHED_WIDTH = 256  # of the widest map at full resolution
LARGEST_STRIP = 131  # elements per pixel: a picture has eight strips or more
# What convolutions take beside maps, as a factor, measured: on CPUs, and with cuDNN on an H200.
WORKSPACE, CUDA_WORKSPACE = 1.3, 1.75


def decoded(network: Coder, latent: Tensor) -> Tensor:
    """One latent [1, 16, h, w], in the network's precision and on its device -> [1, 3, 8h, 8w], about [-1, 1]."""
    if not isinstance(network, Autoencoder):
        return network.decode(latent)
    return _finite(strips.decoded, network, latent, 64 * latent.shape[-1] * latent.shape[-2])


def encoded(network: Coder, image: Tensor) -> Tensor:
    """One image [1, 3, H, W] in [-1, 1] -> the mean of its latent's distribution, [1, 16, H / 8, W / 8]."""
    if not isinstance(network, Autoencoder):
        return network.encode(image)[0]
    return _finite(strips.encoded, network, image, image.shape[-1] * image.shape[-2])


def decoded_in_tiles(network: Coder, latent: Tensor, tiling: Tiling) -> Tensor:
    """As ComfyUI's tiled node: three passes over tiles of three shapes, averaged. Sizes in latent positions."""
    return blended(network.decode, latent, tiling, network.downscale)


def encoded_in_tiles(network: Coder, image: Tensor, tiling: Tiling) -> Tensor:
    """As ComfyUI's tiled node. Sizes in pixels."""
    return blended(lambda tile: network.encode(tile)[0], image, tiling, 1 / network.downscale)


def needed_bytes(
    way: Way, shape: VaeShape, pixels: int, dtype: torch.dtype, keeping: Keeping, device: str = "cpu"
) -> int:
    """What a picture of so many pixels takes beside weights and input."""
    per_pixel, strip = NEEDS[way][keeping]
    width = max(shape.channels[:2]) / PUBLISHED_WIDTH
    elements = per_pixel * pixels * width + min(strip, LARGEST_STRIP * pixels * width)
    return int(elements * dtype.itemsize * (CUDA_WORKSPACE if device == "cuda" else WORKSPACE))


def least_bytes(way: Way, shape: VaeShape, pixels: int, dtype: torch.dtype) -> int:
    """Below this no picture of so many pixels can be made, in whichever way."""
    per_pixel, strip, most = LEAST[way]
    width = max(shape.channels[:2]) / PUBLISHED_WIDTH
    return int((per_pixel * pixels + min(strip * pixels, most)) * width * dtype.itemsize)


def _finite(way: Way, network: Autoencoder, x: Tensor, pixels: int) -> Tensor:
    """The result; where 16 bits overflowed on the way, that of float32."""
    result = _fitting(way, network, x, pixels)
    if x.dtype.itemsize > 2 or bool(result.isfinite().all()) or not bool(x.isfinite().all()):
        return result
    log.warning("the autoencoder overflows in %s: once more in float32", x.dtype)
    return _fitting(way, copy.deepcopy(network).float(), x.float(), pixels).to(x.dtype)


def _fitting(way: Way, network: Autoencoder, x: Tensor, pixels: int) -> Tensor:
    """The first way that fits into what is free; where an allocator still says no, the next."""
    x = x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
    least = least_bytes(way, network.shape, pixels, x.dtype)
    if least > available_bytes(x.device) + UNSURE_BYTES:
        gc.collect()
        give_back(x.device.type)
        if least > available_bytes(x.device) + UNSURE_BYTES:
            raise _too_large(way, network.shape, x, pixels, "nothing was tried")
    ways = _promising(way, network.shape, x, pixels)
    for keeping in ways:
        if keeping is not Keeping.WHOLE:
            log.info("a picture of %.1f megapixels in strips (%s): memory is short", pixels / 1e6, keeping.value)
        try:
            return way(network, x, keeping)
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).splitlines()[0]
        gc.collect()  # outside the handler: the traceback held every map
        give_back(x.device.type)
    raise _too_large(way, network.shape, x, pixels, said)


def _too_large(way: Way, shape: VaeShape, x: Tensor, pixels: int, said: str) -> OutOfMemory:
    """What it takes, what there is, and what would work."""
    room = available_bytes(x.device)

    def needed(count: int, dtype: torch.dtype) -> int:
        return needed_bytes(way, shape, count, dtype, Keeping.LEVELS, x.device.type)

    takes, halved = needed(pixels, x.dtype), needed(pixels, torch.bfloat16)
    smaller = (pixels * share // 64 for share in range(63, 0, -1))
    fitting = next((count for count in smaller if needed(count, x.dtype) <= room), 0)
    advice = f"one of {fitting / 1e6:.2f} megapixels fits" if fitting >= 10_000 else "free some memory"
    if x.dtype == torch.float32 and halved <= room:
        advice += f", with --precision vae=bf16 this one does, in {bytes_in_words(halved)}"
    return OutOfMemory(
        f"a picture of {pixels / 1e6:.1f} megapixels takes {bytes_in_words(takes)} in strips on {x.device}, "
        f"which has {bytes_in_words(room)} left ({said}); {advice}"
    )


def _promising(way: Way, shape: VaeShape, x: Tensor, pixels: int) -> Sequence[Keeping]:
    """From the fastest that should fit to the most frugal, which is tried in any case."""
    room = available_bytes(x.device)
    fits = [needed_bytes(way, shape, pixels, x.dtype, keeping, x.device.type) <= room for keeping in Keeping]
    first = fits.index(True) if any(fits) else len(fits) - 1
    return list(Keeping)[first:]
