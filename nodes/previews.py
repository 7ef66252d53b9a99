"""Pictures on the way: a latent as a small picture by a linear map, and results sent over the socket unsaved.

The map from 16 latent channels to colours was fitted by `python -m benchmarks.fit_latent_rgb`.
"""

import io
import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image as Pillow
from torch import Tensor

from sigmagraph.engine.graph.node import Progress, Tooltip, UiResult, node
from sigmagraph.nodes.support.pictures import png_bytes
from sigmagraph.nodes.support.types import Image

__all__ = ["NODES", "EncodedPreview", "Previewer", "latent_picture"]

COEFFICIENTS = Path(__file__).with_name("latent_rgb.json")
LONGEST_SIDE = 512
LARGEST_FACTOR = 8
QUALITY = 95


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
    colours = torch.einsum("chw,cr->hwr", small, weights) + offset
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
    """Encodes what a node reports: latents at most every `pause_s` seconds, results always."""

    pause_s: float = 0.1
    now: Callable[[], float] = time.monotonic
    shown_at: float = float("-inf")

    def __call__(self, value: Any) -> EncodedPreview | None:
        """The picture to show, or None when there is none, or none yet."""
        if isinstance(value, EncodedPreview):
            return value
        is_latent = isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == 16
        fitted = coefficients()
        if not is_latent or fitted is None or not self.now() - self.shown_at >= self.pause_s:
            return None
        self.shown_at = self.now()
        return EncodedPreview("image/jpeg", latent_picture(value, *fitted))


@node("SaveImageWebsocket", category="api/image", display_name="Save Image (websocket)", output_node=True)
def save_image_websocket(*, images: Annotated[Image, Tooltip("What to send.")]) -> Generator[Progress, None, UiResult]:
    """Send each picture as PNG to the client that submitted the job; nothing is written to disk."""
    for index, image in enumerate(images):
        yield Progress(index, len(images), preview=EncodedPreview("image/png", png_bytes(image, {}), is_result=True))
    return UiResult()


NODES = (save_image_websocket,)
