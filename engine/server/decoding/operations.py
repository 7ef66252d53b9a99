"""What is made of pictures, with Pillow: the only code of the server that decodes any. Limits come first."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageChops, ImageDraw, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from sigmagraph.engine.errors import UnreadableImage
from sigmagraph.engine.picture_formats import readable_formats

__all__ = ["OPERATIONS", "Operation", "compare", "decoded", "opened"]

PREVIEW_PIXELS = 1 << 24
LONGEST_WEBP = 16383
STRIP_ROWS = 256
THUMBNAIL = (384, 384)
PAPER, BOX, HEAD, LINE = (32, 33, 36), (62, 64, 70), (94, 129, 172), (150, 152, 158)
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
Picture = Image.Image
Made = bytes | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What to make, whether a smaller picture does, and the most memory it takes: bytes a pixel of its sources."""

    make: Callable[..., Made]
    pixel_bytes: int = 12
    is_small: bool = False


def opened(path: Path | BinaryIO, max_pixels: int, name: str = "") -> Picture:
    """The picture with its size checked; not a pixel is decoded."""
    try:
        image = Image.open(path, formats=readable_formats())
    except BROKEN as error:
        raise _unreadable(name or path, error) from error
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadableImage(name or path, f"{width} x {height} is more than {max_pixels} pixels")
    return image


def decoded(image: Picture, name: str = "") -> Picture:
    """The picture with its pixels, its file closed."""
    try:
        with image:
            image.load()
    except BROKEN as error:
        raise _unreadable(name or getattr(image, "filename", ""), error) from error
    return image


def _unreadable(place: object, error: Exception) -> UnreadableImage:
    return UnreadableImage(place, f"no picture that can be shown: {error}")


def drafted(image: Picture) -> None:
    """Have a JPEG decoded at half its size or less, where a preview needs no more."""
    factor = _reduction(image)
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))


def preview(images: Sequence[Picture], kind: str, quality: int, *, keep_alpha: bool) -> bytes:
    """The picture as `webp` or `jpeg`, of at most 16 million pixels."""
    [image] = images
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if keep_alpha and has_alpha and kind == "webp" else "RGB"
    return _bytes(_smaller(image, mode), kind, quality=quality)


def _reduction(image: Picture) -> int:
    width, height = image.size
    return max(math.ceil(math.sqrt(width * height / PREVIEW_PIXELS)), math.ceil(max(width, height) / LONGEST_WEBP))


def _smaller(image: Picture, mode: str) -> Picture:
    """Reduced by a whole factor, in strips: no second picture of the full size."""
    factor, (width, height) = _reduction(image), image.size
    if factor == 1:
        return image.convert(mode)
    made = Image.new(mode, (math.ceil(width / factor), math.ceil(height / factor)))
    for top in range(0, height, factor * STRIP_ROWS):
        strip = image.crop((0, top, width, min(height, top + factor * STRIP_ROWS))).convert(mode)
        made.paste(strip.reduce(factor), (0, top // factor))
    return made


def without_alpha(images: Sequence[Picture]) -> bytes:
    """The colours alone, as PNG."""
    return _bytes(images[0].convert("RGB"), "png")


def alpha_of(images: Sequence[Picture]) -> bytes:
    """The alpha alone, as RGBA PNG; opaque where there is none."""
    alpha = images[0].convert("RGBA").getchannel("A")
    made = Image.new("RGBA", alpha.size)
    made.putalpha(alpha)
    return _bytes(made, "png")


def with_alpha(images: Sequence[Picture]) -> bytes:
    """The first with the alpha of the second, text chunks kept, as RGBA PNG."""
    original, mask = images
    made = original.convert("RGBA")
    alpha = mask.convert("RGBA").getchannel("A")
    made.putalpha(alpha if alpha.size == made.size else alpha.resize(made.size))
    text = PngInfo()
    for name, value in getattr(original, "text", {}).items():
        text.add_text(name, value)
    return _bytes(made, "png", pnginfo=text)


def encode(images: Sequence[Picture], kind: str, quality: int) -> bytes:
    """The whole picture as jpeg, png or webp; the graph that made it does not travel along."""
    [image] = images
    if kind == "png":
        return _bytes(image, "png")
    return _bytes(image.convert("RGB"), kind, quality=quality)


def compare(images: Sequence[Picture]) -> dict[str, Any]:
    """Two pictures, channel by channel: the largest difference and the PSNR in decibels."""
    first, second = images
    if first.size != second.size:
        return {"max_abs": 255, "psnr": 0.0, "is_same_size": False}
    mode = first.mode if first.mode == second.mode and first.mode in ("RGB", "RGBA", "L") else "RGBA"
    counts = ImageChops.difference(first.convert(mode), second.convert(mode)).histogram()  # no loop over pixels
    max_abs = max(place % 256 for place, count in enumerate(counts) if count)
    mean_square = sum(count * (place % 256) ** 2 for place, count in enumerate(counts)) / sum(counts)
    psnr = math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)
    return {"max_abs": max_abs, "psnr": psnr, "is_same_size": True}


def sketch(images: Sequence[Picture], boxes: Sequence[Sequence[float]], lines: Sequence[tuple[int, int]]) -> bytes:
    """Boxes (left, top, width, height) and lines from one to another, drawn small: a graph at a glance."""
    right = max((left + width for left, _, width, _ in boxes), default=1) + 40
    bottom = max((top + height for _, top, _, height in boxes), default=1) + 40
    scale = min(THUMBNAIL[0] / right, THUMBNAIL[1] / bottom)
    x, y = (THUMBNAIL[0] - right * scale) / 2, (THUMBNAIL[1] - bottom * scale) / 2
    placed = [(x + left * scale, y + top * scale, width * scale, height * scale) for left, top, width, height in boxes]
    image = Image.new("RGB", THUMBNAIL, PAPER)
    pen = ImageDraw.Draw(image)
    for source, target in lines:
        start, end = placed[source], placed[target]
        pen.line([start[0] + start[2], start[1] + 20 * scale, end[0], end[1] + 20 * scale], fill=LINE, width=1)
    for left, top, width, height in placed:
        pen.rectangle([left, top, left + width, top + height], fill=BOX)
        pen.rectangle([left, top, left + width, top + 24 * scale], fill=HEAD)
    return _bytes(image, "webp", quality=90)


def _bytes(image: Picture, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **options)
    return buffer.getvalue()


OPERATIONS: Mapping[str, Operation] = {
    "preview": Operation(preview, pixel_bytes=4, is_small=True),
    "without_alpha": Operation(without_alpha),
    "alpha_of": Operation(alpha_of),
    "with_alpha": Operation(with_alpha),
    "encode": Operation(encode),
    "compare": Operation(compare),
    "sketch": Operation(sketch),
}
