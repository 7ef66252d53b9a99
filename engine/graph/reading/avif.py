"""The EXIF item of an AVIF picture: boxes of the ISO base media format, read with limits. Decodes no pixel.

A box is its length, four letters and a body; `meta` holds `iinf`, which items there are, and `iloc`, where they lie
(ISO/IEC 14496-12, 8.11). The EXIF item is an offset of four bytes and a TIFF structure behind it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sigmagraph.engine.errors import BadDocument

__all__ = ["exif_of_avif", "is_avif"]

BRANDS = frozenset((b"avif", b"avis"))
MOST = 10_000  # boxes, items and extents
MAX_EXIF = 32 * 1024 * 1024


def is_avif(data: bytes) -> bool:
    """Whether the bytes begin as an AVIF picture."""
    return data[4:8] == b"ftyp" and data[8:12] in BRANDS


def exif_of_avif(data: bytes) -> bytes:
    """The TIFF structure of the first EXIF item; nothing where there is none."""
    meta = next((body for name, body in _boxes(data) if name == b"meta"), b"")
    parts = dict(_boxes(meta[4:]))
    wanted = next((item for item, kind in _items(parts.get(b"iinf", b"")) if kind == b"Exif"), None)
    if wanted is None:
        return b""
    for item, method, extents in _places(parts.get(b"iloc", b"")):
        if item == wanted and sum(length for _, length in extents) <= MAX_EXIF:
            source = parts.get(b"idat", b"") if method == 1 else data
            if any(at + length > len(source) for at, length in extents):
                raise BadDocument("AVIF: the EXIF item lies beyond the end of the file")
            exif = b"".join(source[at : at + length] for at, length in extents)
            return exif[4 + int.from_bytes(exif[:4], "big") :]
    return b""


@dataclass(slots=True)
class _Reader:
    """Big-endian numbers of a body, one after the other; a body that ends before is damage."""

    body: bytes
    at: int = 0

    def number(self, size: int) -> int:
        """The next number of `size` bytes; 0 for none."""
        if self.at + size > len(self.body):
            raise BadDocument(f"AVIF: a box ends in the middle of a number, at byte {self.at} of it")
        value = int.from_bytes(self.body[self.at : self.at + size], "big")
        self.at += size
        return value


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    for _ in range(MOST):
        if at + 8 > len(data):
            return
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or len(data) - at  # 0: to the end
        if size < head or at + size > len(data):
            raise BadDocument(f"AVIF: the box at byte {at} claims {size} bytes; the file ends before")
        yield data[at + 4 : at + 8], data[at + head : at + size]
        at += size
    raise BadDocument(f"AVIF: more than {MOST} boxes")


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and type of every item that has a type."""
    if not body:
        return
    for name, entry in _boxes(body[6 if body[0] == 0 else 8 :]):
        version = entry[0] if entry else 0
        if name == b"infe" and version >= 2:
            wide = 2 if version == 2 else 4
            yield int.from_bytes(entry[4 : 4 + wide], "big"), entry[6 + wide : 10 + wide]


def _places(body: bytes) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Number of every item, how its offsets count (0: in the file, 1: in `idat`), and its pieces (offset, length)."""
    if not body:
        return
    read = _Reader(body)
    version = read.number(1)
    read.number(3)
    sizes = read.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    for _ in range(min(read.number(wide), MOST)):
        item = read.number(wide)
        method = read.number(2) & 15 if version in (1, 2) else 0
        read.number(2)
        base = read.number(base_size)
        extents = []
        for _ in range(min(read.number(2), MOST)):
            read.number(index_size if version in (1, 2) else 0)
            at = base + read.number(offset_size)
            extents.append((at, read.number(length_size)))
        yield item, method, extents
