"""Files that carry workflows: PNG text chunks, EXIF texts of WebP, JPEG and AVIF, metadata of SVG and of latents.

Reads bytes, decodes no pixel.

Each form has limits, so that a small file never becomes a large one, and every refusal is a `BadDocument`.
"""

from collections.abc import Callable, Iterator, Mapping

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.reading.avif import exif_of_avif, is_avif
from sigmagraph.engine.graph.reading.exif import exif_texts
from sigmagraph.engine.graph.reading.png import MAX_CHUNKS, is_png, text_chunks
from sigmagraph.engine.graph.reading.svg import is_svg, metadata_of_svg
from sigmagraph.engine.graph.reading.tensor_file import is_tensor_file, metadata_of_tensors

__all__ = ["carried_texts", "is_carrier", "kind_of"]

EXIF_MARK = b"Exif\0\0"
APP1 = 0xE1
STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # JPEG markers without a length


def is_carrier(data: bytes) -> bool:
    """Whether the bytes begin as a picture of a kind that can carry a workflow."""
    return kind_of(data) is not None


def kind_of(data: bytes) -> str | None:
    """`png`, `webp`, `jpeg`, `avif`, `svg` or `tensors` by content; None for anything else."""
    if is_png(data):
        return "png"
    for kind, begins in ("avif", is_avif), ("svg", is_svg), ("tensors", is_tensor_file):
        if begins(data):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "jpeg" if data[:3] == b"\xff\xd8\xff" else None


Warn = Callable[[str], None]


def carried_texts(data: bytes, warn: Warn = lambda message: None) -> Mapping[str, str]:
    """Keyword -> text of whatever the picture carries: `prompt`, `workflow`, `lock`, and others' keywords.

    Damage that leaves the texts readable is handed to `warn`. Raises `BadDocument` for other damage and for text beyond
    32 MiB, and where nothing is readable beside what was warned of.
    """
    kind = kind_of(data)
    if kind is None:
        allowed = "PNG, WebP, JPEG, AVIF, SVG or a latent"
        raise BadDocument(f"not a picture of a kind that carries workflows; expected {allowed}")
    warnings: list[str] = []
    texts = READERS[kind](data, warnings.append)
    if warnings and not texts:
        raise BadDocument(warnings[0])
    for message in warnings:
        warn(message)
    return texts


def _webp_texts(data: bytes, warn: Warn) -> dict[str, str]:
    """RIFF chunks: four letters, length, body padded to even; the first EXIF one holds a TIFF structure."""
    for name, body in _riff_chunks(data):
        if name == b"EXIF":
            return _texts_of(body.removeprefix(EXIF_MARK), warn)
    return {}


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > len(data):
            raise BadDocument(f"WebP: the chunk at byte {at} claims {length} bytes; the file ends before")
        if name == b"EXIF":
            yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise BadDocument(f"WebP: more than {MAX_CHUNKS} chunks")


def _jpeg_texts(data: bytes, warn: Warn) -> dict[str, str]:
    """The first EXIF segment before the picture's data; the structure fits in it, 64 KiB."""
    for marker, body in _jpeg_segments(data):
        if marker == APP1 and body.startswith(EXIF_MARK):
            return _texts_of(body[len(EXIF_MARK) :], warn)
    return {}


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 2
    for _ in range(MAX_CHUNKS):
        while at < len(data) and data[at] == 0xFF and at + 1 < len(data) and data[at + 1] == 0xFF:
            at += 1  # fill bytes
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] in (0xD9, 0xDA):
            return
        marker = data[at + 1]
        if marker in STANDALONE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise BadDocument(f"JPEG: the segment at byte {at} claims {length} bytes; the file ends before")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
    raise BadDocument(f"JPEG: more than {MAX_CHUNKS} segments")


def _avif_texts(data: bytes, warn: Warn) -> dict[str, str]:
    exif = exif_of_avif(data).removeprefix(EXIF_MARK)
    return _texts_of(exif, warn) if exif else {}


def _texts_of(tiff: bytes, warn: Warn) -> dict[str, str]:
    """EXIF texts of the form `keyword:text`, as ComfyUI and others write them; the first of a keyword wins."""
    texts: dict[str, str] = {}
    for text in exif_texts(tiff, warn):
        keyword, colon, rest = text.partition(":")
        if colon and keyword.strip().isidentifier():
            texts.setdefault(keyword.strip().lower(), rest.strip())
    return texts


READERS: Mapping[str, Callable[[bytes, Warn], dict[str, str]]] = {
    "png": text_chunks,
    "webp": _webp_texts,
    "jpeg": _jpeg_texts,
    "avif": _avif_texts,
    "svg": lambda data, _: metadata_of_svg(data),
    "tensors": lambda data, _: metadata_of_tensors(data),
}
