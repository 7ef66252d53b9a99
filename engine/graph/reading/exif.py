"""The texts in an EXIF (TIFF) structure, in both byte orders, with limits. Standard library; knows no workflow."""

from collections.abc import Callable, Iterator
from struct import error as StructError
from struct import unpack_from
from typing import Literal

from sigmagraph.engine.errors import BadDocument

__all__ = ["exif_texts"]

Order = Literal["<", ">"]
ASCII, UNDEFINED = 2, 7
EXIF_POINTER, USER_COMMENT = 0x8769, 0x9286
MAX_DIRECTORIES, MAX_ENTRIES = 16, 1000
MAX_TEXT_BYTES = 32 * 1024 * 1024
CODES = {b"ASCII\0\0\0": "utf-8", b"\0" * 8: "utf-8"}  # what precedes the text of a UserComment


def exif_texts(tiff: bytes, warn: Callable[[str], None]) -> Iterator[str]:
    """Every text of the structure, in file order. A text whose offset leads out of the structure is said and left out.

    Raises `BadDocument` where a directory leads out of it, and for directories, entries or texts beyond the limits.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise BadDocument("EXIF: begins as no TIFF structure does")
    try:
        yield from _directories(tiff, "<" if order == "<" else ">", warn)
    except StructError as error:
        raise BadDocument(f"EXIF: an offset leads out of the structure ({error})") from error


def _directories(tiff: bytes, order: Order, warn: Callable[[str], None]) -> Iterator[str]:
    """Directories are chained and nested by offsets; each is read once, so a ring of them ends.

    Lengths are summed as they are claimed: a thousand entries may point at one place, and zeros are read as no text.
    """
    total = 0
    waiting = [unpack_from(f"{order}I", tiff, 4)[0]]
    seen: set[int] = set()
    while waiting:
        at = waiting.pop(0)
        if at == 0 or at in seen:
            continue
        if len(seen) == MAX_DIRECTORIES:
            raise BadDocument(f"EXIF: more than {MAX_DIRECTORIES} directories")
        seen.add(at)
        count = unpack_from(f"{order}H", tiff, at)[0]
        if count > MAX_ENTRIES:
            raise BadDocument(f"EXIF: a directory of {count} entries; expected at most {MAX_ENTRIES}")
        for entry in range(count):
            place = at + 2 + 12 * entry
            tag, kind, length = unpack_from(f"{order}HHI", tiff, place)
            if tag == EXIF_POINTER:
                waiting.append(unpack_from(f"{order}I", tiff, place + 8)[0])
            elif kind == ASCII or (tag == USER_COMMENT and kind == UNDEFINED):
                text = _text(tiff, order, place, length, is_comment=tag == USER_COMMENT)
                if text is None:
                    warn(f"EXIF: tag 0x{tag:04x} claims a string of {length} bytes beyond the structure; left out")
                    continue
                total += length
                if total > MAX_TEXT_BYTES:
                    raise BadDocument(f"EXIF: more than {MAX_TEXT_BYTES} bytes of text; expected at most that")
                yield text
        after = at + 2 + 12 * count
        if after + 4 <= len(tiff):
            waiting.append(unpack_from(f"{order}I", tiff, after)[0])


def _text(tiff: bytes, order: Order, place: int, length: int, *, is_comment: bool) -> str | None:
    """One entry's text, None if it leads out of the structure; up to four bytes stand in the entry itself."""
    begin = place + 8 if length <= 4 else unpack_from(f"{order}I", tiff, place + 8)[0]
    if begin + length > len(tiff):
        return None
    data = tiff[begin : begin + length]
    if is_comment and data[:8] == b"UNICODE\0":
        return data[8:].decode("utf-16-le" if order == "<" else "utf-16-be", "replace").rstrip("\0")
    if is_comment and data[:8] in CODES:
        data = data[8:]
    return data.rstrip(b"\0").decode("utf-8", "replace")
