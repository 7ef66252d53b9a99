"""Pictures as the server touches them: re-encoded for the page, masks put onto originals. Limits come first."""

import io
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from sigmagraph.engine.errors import UnreadableImage
from sigmagraph.engine.pictures import readable_formats

__all__ = ["alpha_of", "opened", "reencoded", "with_alpha", "without_alpha"]


def opened(path: Path | BinaryIO, max_pixels: int) -> Image.Image:
    """The picture, its size checked before a pixel is decoded."""
    try:
        with Image.open(path, formats=readable_formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UnreadableImage(path, f"{width} x {height} is more than {max_pixels} pixels")
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(path, f"no picture that can be shown: {error}") from error
    return image


def reencoded(image: Image.Image, kind: str, quality: int, *, keep_alpha: bool) -> bytes:
    """The picture as `webp` or `jpeg`."""
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if keep_alpha and has_alpha and kind == "webp" else "RGB"
    return _bytes(image.convert(mode), kind, quality=quality)


def without_alpha(image: Image.Image) -> bytes:
    """The colours alone, as PNG."""
    return _bytes(image.convert("RGB"), "png")


def alpha_of(image: Image.Image) -> bytes:
    """The alpha alone, as RGBA PNG; opaque where there is none."""
    alpha = image.convert("RGBA").getchannel("A")
    picture = Image.new("RGBA", image.size)
    picture.putalpha(alpha)
    return _bytes(picture, "png")


def with_alpha(original: Image.Image, mask: Image.Image) -> bytes:
    """The original with the alpha of another picture, text chunks kept, as RGBA PNG."""
    picture = original.convert("RGBA")
    alpha = mask.convert("RGBA").getchannel("A")
    picture.putalpha(alpha if alpha.size == picture.size else alpha.resize(picture.size))
    text = PngInfo()
    for name, value in getattr(original, "text", {}).items():
        text.add_text(name, value)
    return _bytes(picture, "png", pnginfo=text)


def _bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **options)
    return buffer.getvalue()
