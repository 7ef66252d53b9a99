"""Small files that are large or slow pictures."""

import io
import struct
import zlib

from PIL import Image


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there over and over: each costs a pass over all of its pixels."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def flat_png(side: int, kind: int = 2) -> bytes:
    """A square PNG of one colour; `kind` 2 is RGB, 6 is RGBA. Not even its maker holds it unpacked."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side * {2: 3, 6: 4}[kind])
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
