"""Pictures on the way: a latent as a small picture; results sent over the socket unsaved.

A latent is shown by the decoder kept beside its model's weights (`sigmagraph fit-preview`), else by TAESD3, else by a
linear map, which was fitted to the demo's VAE: of other models it shows shapes in wrong colours.
"""

import io
import json
import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from torch import Tensor

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.graph.node import Progress, Tooltip, UiResult, node
from sigmagraph.engine.models.arch.preview import PreviewDecoder
from sigmagraph.engine.models.preview import load_preview, preview_beside
from sigmagraph.nodes.support.latent_preview import LatentPreview
from sigmagraph.nodes.support.pictures import png_bytes
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES", "EncodedPreview", "Previewer", "latent_picture"]

COEFFICIENTS = Path(__file__).with_name("latent_rgb.json")
LONGEST_SIDE = 512
LARGEST_FACTOR = 8
QUALITY = 95
SHARE = 10  # of a preview's own time that passes before the next
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """A picture file; `is_result` when it is what the job is for, not a glance at it."""

    content_type: str
    data: bytes
    is_result: bool = False


@cache
def coefficients() -> tuple[Tensor, Tensor] | None:
    """The map: weights [16, 3] and offset [3], from latents in model units to colours in 0..1; None before a fit."""
    if not COEFFICIENTS.is_file():
        return None
    fitted = json.loads(COEFFICIENTS.read_text("utf-8"))
    return torch.tensor(fitted["weights"]), torch.tensor(fitted["offset"])


def latent_picture(latent: Tensor, weights: Tensor, offset: Tensor) -> bytes:
    """The first latent [B, 16, h, w] of a batch, in model units, as JPEG of at most 512 pixels a side."""
    small = latent[0].detach().to("cpu", torch.float32)
    return jpeg(torch.einsum("chw,cr->hwr", small, weights) + offset)


def jpeg(colours: Tensor) -> bytes:
    """A picture [H, W, 3] in 0..1 as JPEG of at most 512 pixels a side, a very small one enlarged."""
    pixels = (colours * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    picture = Pillow.fromarray(pixels)
    factor = max(1, min(LARGEST_FACTOR, LONGEST_SIDE // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Pillow.Resampling.BICUBIC)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


@dataclass
class Previewer:
    """Encodes what a node reports: latents at most every `pause_s` seconds, results always.

    `decode` makes a picture [H, W, 3] of one latent [1, 16, h, w] in model units where the model has no decoder of its
    own; without it, a linear map does. It may take a tenth of the time at most: after a slow one the next waits longer.
    """

    pause_s: float = 0.1
    decode: Callable[[Tensor], Tensor] | None = None
    now: Callable[[], float] = time.monotonic
    shown_at: float = float("-inf")
    took_s: float = 0.0

    def __call__(self, value: Any) -> EncodedPreview | None:
        """The picture to show, or None when there is none, or none yet."""
        if isinstance(value, EncodedPreview):
            return value
        latent, weights = (value.latent, value.weights) if isinstance(value, LatentPreview) else (value, None)
        is_latent = isinstance(latent, Tensor) and latent.ndim == 4 and latent.shape[1] == 16
        pause_s = max(self.pause_s, SHARE * self.took_s)
        if not is_latent or not self.now() - self.shown_at >= pause_s:
            return None
        began = self.shown_at = self.now()
        shown = self._decoded(latent, weights)
        self.took_s = self.now() - began
        return EncodedPreview("image/jpeg", shown) if shown is not None else None

    def _decoded(self, latent: Tensor, weights: Path | None) -> bytes | None:
        kept = preview_beside(weights) if weights is not None else None
        own = _kept_decoder(kept, kept.stat().st_mtime_ns) if kept is not None else None
        if own is not None and len(own.mean) == latent.shape[1]:
            with torch.inference_mode():
                return jpeg(own(_at_most(latent[:1], LONGEST_SIDE // own.enlarges).cpu())[0].movedim(0, -1))
        if self.decode is not None:
            try:
                return jpeg(self.decode(_at_most(latent[:1], LONGEST_SIDE // 8)))
            except EngineError as error:
                log.warning("previews are by a linear map from now on: %s", error)
                self.decode = None
        fitted = coefficients()
        return latent_picture(latent, *fitted) if fitted is not None else None


@lru_cache(8)
def _kept_decoder(path: Path, changed_ns: int) -> PreviewDecoder | None:
    """The decoder of a file, read once per change; one that cannot be read is told once."""
    try:
        return load_preview(path)
    except EngineError as error:
        log.warning("no previews by the decoder beside the model: %s", error)
        return None


def _at_most(latent: Tensor, side: int) -> Tensor:
    """A latent of at most so many places a side, float32: a preview need not be larger than it is shown."""
    factor = max(1.0, max(latent.shape[-2:]) / side)
    size = [max(1, round(length / factor)) for length in latent.shape[-2:]]
    return F.interpolate(latent.detach().float(), size=size, mode="area") if factor > 1 else latent.detach().float()


@node("SaveImageWebsocket", category="api/image", display_name="Save Image (websocket)", output_node=True)
def save_image_websocket(*, images: Annotated[Image, Tooltip("What to send.")]) -> Generator[Progress, None, UiResult]:
    """Send each picture as PNG to the client that submitted the job; nothing is written to disk."""
    for index, image in enumerate(images):
        yield Progress(index, len(images), preview=EncodedPreview("image/png", png_bytes(image, {}), is_result=True))
    return UiResult()


NODES = (save_image_websocket,)
