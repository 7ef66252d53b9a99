"""Between tensors and picture files: PNG bytes out, pictures of any common kind in. Knows no folder and no node."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sigmagraph.engine.errors import MissingFile, UnreadableImage
from sigmagraph.engine.picture_formats import readable_formats

__all__ = ["ALPHA", "MAX_PIXELS", "opened", "png_bytes", "read_channel", "read_picture"]

# Pillow's own threshold for a decompression bomb, over all frames; refused from the header, before decoding.
MAX_PIXELS = 89_478_485
ALPHA = 3  # the place of the alpha channel


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


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file, refused by its header where it is too large; whatever decoding raises becomes a file problem."""
    try:
        with Image.open(path, formats=readable_formats()) as picture:
            _check_size(path, picture)
            yield picture
    except FileNotFoundError as error:
        raise MissingFile(path, "there is no such picture") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(path, "is not a picture of a kind that can be read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(path, f"is too large; at most {MAX_PIXELS:,} pixels are read") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged files
        raise UnreadableImage(path, f"is damaged: {error}") from error


def read_channel(path: Path, index: int) -> Tensor:
    """Red, green, blue or alpha (0 to 3) of the upright first frame, as values [H, W] in 0..1."""
    with opened(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if _is_16_bit_grey(upright):
            return torch.ones(upright.height, upright.width) if index == ALPHA else _deep_grey(upright)
        return _tensor(upright.convert("RGBA").getchannel(index))


def read_picture(path: Path) -> tuple[Tensor, Tensor]:
    """A picture file as images [B, H, W, 3] and masks [B, H, W], both 0..1; mask 1 = transparent.

    Turned upright by its EXIF orientation. The frames of an animation that share the first one's size become a batch.
    Without transparency the mask is [1, 64, 64] zeros, as ComfyUI graphs expect.
    """
    with opened(path) as picture:
        frames = [_frame(frame) for frame in _upright(picture)]
    alike = [frame for frame in frames if frame[0].shape == frames[0][0].shape]
    images = torch.stack([image for image, _ in alike])
    return images, _masks([mask for _, mask in alike], *images.shape[1:3])


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
    if _is_16_bit_grey(frame):
        return _deep_grey(frame)[..., None].repeat(1, 1, 3), None
    has_alpha = "A" in frame.getbands() or "transparency" in frame.info
    mask = 1.0 - _tensor(frame.convert("RGBA").getchannel("A")) if has_alpha else None
    return _tensor(frame.convert("RGB")), mask


def _is_16_bit_grey(frame: Image.Image) -> bool:
    return frame.mode == "I" or frame.mode.startswith("I;16")


def _deep_grey(frame: Image.Image) -> Tensor:
    """16-bit grey [H, W] in 0..1; Pillow's own conversion would cut everything above 255 off."""
    return torch.from_numpy(np.asarray(frame).astype(np.float32) / 65535.0).clamp(0, 1)


def _masks(masks: list[Tensor | None], height: int, width: int) -> Tensor:
    """Masks [B, H, W] of frames that may lack one."""
    if all(mask is None for mask in masks):
        return torch.zeros(len(masks), 64, 64)
    return torch.stack([torch.zeros(height, width) if mask is None else mask for mask in masks])


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)
