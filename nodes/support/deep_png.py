"""PNG files of 16 bits a channel, which Pillow does not write for colours (PNG specification, third edition)."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["deep_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # grey, RGB, RGBA
LEVEL = 4


def deep_png(image: Tensor, text: Mapping[str, Any]) -> bytes:
    """One image [H, W, 1, 3 or 4] in 0..1 as a PNG of 16 bits; `text` becomes one text chunk of JSON per key."""
    height, width, channels = image.shape
    levels = (image.detach().to("cpu", torch.float64) * 65535.0).round().clamp(0, 65535).numpy().astype(">u2")
    rows = np.zeros((height, width * channels * 2 + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = levels.reshape(height, -1).view(np.uint8)
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    return SIGNATURE + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", head),
            *_texts(text),
            (b"IDAT", zlib.compress(rows.tobytes(), LEVEL)),
            (b"IEND", b""),
        )
    )


def _texts(text: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """JSON is ASCII, so a plain text chunk holds it."""
    for key, value in text.items():
        yield b"tEXt", key.encode("latin-1", "replace")[:79] + b"\0" + json.dumps(value).encode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
