"""Text chunks of a PNG, read with the standard library and with limits. Knows nothing about workflows or pixels."""

import zlib
from collections.abc import Callable, Iterator

from sigmagraph.engine.errors import BadDocument

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 32 * 1024 * 1024
MAX_CHUNKS = 100_000  # 800 MB of pixels in the usual 8 KiB


def is_png(data: bytes) -> bool:
    """Whether the bytes begin as every PNG does."""
    return data.startswith(SIGNATURE)


def text_chunks(data: bytes, warn: Callable[[str], None]) -> dict[str, str]:
    """Keyword -> text of the tEXt, zTXt and iTXt chunks; the first of a keyword wins.

    A text chunk with a wrong checksum is read, and said: some programs edit texts and leave the old checksum. Raises
    `BadDocument` for a truncated file, 100,000 chunks, or text beyond 32 MiB.
    """
    texts: dict[str, str] = {}
    total = 0
    for kind, body in _chunks(data, warn):
        if kind not in READERS:
            continue
        keyword, _, rest = body.partition(b"\0")
        text = READERS[kind](rest)
        total += len(text)
        if total > MAX_TEXT_BYTES:
            raise BadDocument(f"PNG: more than {MAX_TEXT_BYTES} bytes of text; expected at most that")
        texts.setdefault(keyword.decode("latin-1"), text)
    return texts


def _chunks(data: bytes, warn: Callable[[str], None]) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk up to IEND; checksums are verified for text only, pixels are not our concern."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            break
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if kind in READERS:
            body = data[at + 8 : end]
            if zlib.crc32(kind + body) != int.from_bytes(data[end : end + 4], "big"):
                warn(f"PNG: chunk {kind.decode('latin-1')} at byte {at} has a wrong checksum; its text may be damaged")
            yield kind, body
        if kind == b"IEND":
            return
        at = end + 4
    else:
        raise BadDocument(f"PNG: more than {MAX_CHUNKS} chunks")
    raise BadDocument(f"PNG: the file ends at byte {len(data)} in the middle of a chunk")


def _inflate(data: bytes) -> bytes:
    """Decompress, at most `MAX_TEXT_BYTES`: a small file must not become a large one."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, MAX_TEXT_BYTES)
    except zlib.error as error:
        raise BadDocument(f"PNG: a compressed text chunk is damaged ({error})") from error
    if stream.unconsumed_tail:
        raise BadDocument(f"PNG: a text chunk inflates beyond {MAX_TEXT_BYTES} bytes")
    return text


def _plain(rest: bytes) -> str:
    return _decoded(rest)


def _compressed(rest: bytes) -> str:
    return _decoded(_inflate(rest[1:]))


def _international(rest: bytes) -> str:
    is_compressed = rest[:1] == b"\1"
    _language, _, tail = rest[2:].partition(b"\0")
    _translated, _, text = tail.partition(b"\0")
    return _decoded(_inflate(text) if is_compressed else text)


def _decoded(text: bytes) -> str:
    """UTF-8 where it is, else Latin-1: writers disagree with the specification, which says Latin-1 for tEXt."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


READERS = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}
