"""Between tensors and picture files: PNG bytes out, pictures of any common kind in. Knows no folder and no node."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sigmagraph.engine.errors import MissingFile, UnreadableImage

__all__ = ["MAX_PIXELS", "png_bytes", "read_picture"]

# Pillow's own threshold for a decompression bomb, over all frames; refused from the header, before decoding.
MAX_PIXELS = 89_478_485


def png_bytes(image: Tensor, text: Mapping[str, Any], compress_level: int = 4) -> bytes:
    """One image [H, W, 3 or 4] in 0..1 as a PNG; equal input gives equal bytes.

    8-bit values are cut off, not rounded, as ComfyUI does. `text` becomes one text chunk of JSON per key.
    """
    pixels = (image.detach().to("cpu", torch.float32) * 255.0).clamp(0, 255).to(torch.uint8).numpy()
    chunks = PngInfo()
    for key, value in text.items():
        chunks.add_text(key, json.dumps(value))
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=chunks, compress_level=compress_level)
    return buffer.getvalue()


def read_picture(path: Path) -> tuple[Tensor, Tensor]:
    """A picture file as images [B, H, W, 3] and masks [B, H, W], both 0..1; mask 1 = transparent.

    Turned upright by its EXIF orientation. The frames of an animation that share the first one's size become a batch.
    Without transparency the mask is [1, 64, 64] zeros, as ComfyUI graphs expect.
    """
    try:
        with Image.open(path, formats=_kinds()) as picture:
            _check_size(path, picture)
            frames = [_frame(frame) for frame in _upright(picture)]
    except FileNotFoundError as error:
        raise MissingFile(path, "there is no such picture") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(path, "is not a picture of a kind that can be read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(path, f"is too large; at most {MAX_PIXELS:,} pixels are read") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged files
        raise UnreadableImage(path, f"is damaged: {error}") from error
    alike = [frame for frame in frames if frame[0].shape == frames[0][0].shape]
    images = torch.stack([image for image, _ in alike])
    return images, _masks([mask for _, mask in alike], *images.shape[1:3])


@cache
def _kinds() -> list[str]:
    """Every kind that Pillow decodes itself: an EPS is a program, which it would have Ghostscript run."""
    Image.init()
    return [kind for kind in Image.OPEN if kind != "EPS"]


def _check_size(path: Path, picture: Image.Image) -> None:
    frames = getattr(picture, "n_frames", 1)
    if picture.width * picture.height * frames > MAX_PIXELS:
        size = f"{picture.width} x {picture.height}" + (f" x {frames} frames" if frames > 1 else "")
        raise UnreadableImage(path, f"is too large ({size}); at most {MAX_PIXELS:,} pixels are read")


def _upright(picture: Image.Image) -> Iterator[Image.Image]:
    """The frames to read; the further pictures of a camera's MPO file are thumbnails and views, not frames."""
    frames = [picture] if picture.format == "MPO" else ImageSequence.Iterator(picture)
    return (ImageOps.exif_transpose(frame) for frame in frames)


def _frame(frame: Image.Image) -> tuple[Tensor, Tensor | None]:
    """One frame as image [H, W, 3] and, where it has transparency, mask [H, W]."""
    if frame.mode == "I" or frame.mode.startswith("I;16"):  # 16-bit grey
        grey = torch.from_numpy(np.asarray(frame).astype(np.float32) / 65535.0).clamp(0, 1)
        return grey[..., None].repeat(1, 1, 3), None
    has_alpha = "A" in frame.getbands() or "transparency" in frame.info
    mask = 1.0 - _tensor(frame.convert("RGBA").getchannel("A")) if has_alpha else None
    return _tensor(frame.convert("RGB")), mask


def _masks(masks: list[Tensor | None], height: int, width: int) -> Tensor:
    """Masks [B, H, W] of frames that may lack one."""
    if all(mask is None for mask in masks):
        return torch.zeros(len(masks), 64, 64)
    return torch.stack([torch.zeros(height, width) if mask is None else mask for mask in masks])


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)
