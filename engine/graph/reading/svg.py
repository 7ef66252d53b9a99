"""The metadata of an SVG drawing. Documents that declare a type or entities are refused, so that none can grow."""

import json
from typing import Any
from xml.parsers import expat

from sigmagraph.engine.errors import BadDocument

__all__ = ["is_svg", "metadata_of_svg"]

MAX_TEXT = 32 * 1024 * 1024
DEEPEST = 200  # elements inside each other
HEAD = 1024


def is_svg(data: bytes) -> bool:
    """Whether the bytes begin as an SVG drawing."""
    start = data[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start)


def metadata_of_svg(data: bytes) -> dict[str, str]:
    """Keyword -> text of the JSON object in the first `metadata` element; values that are no strings as JSON."""
    text = _Metadata().read(data).strip()
    if not text.startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"SVG: its metadata is not JSON: {error}") from error
    return {str(name).lower(): value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


class _Metadata:
    """Collects the text of the first element of that name."""

    def __init__(self) -> None:
        self.depth = 0
        self.inside = 0
        self.texts: list[str] = []
        self.length = 0
        self.is_done = False

    def read(self, data: bytes) -> str:
        """The text; raises `BadDocument` for what is not whole, too deep, or declares a type."""
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse_type
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise BadDocument(f"SVG: {error}") from error
        except (LookupError, UnicodeError, ValueError) as error:
            raise BadDocument(f"SVG: of no encoding we read: {error}") from error
        return "".join(self.texts)

    def _start(self, name: str, _: Any) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise BadDocument(f"SVG: elements nested more than {DEEPEST} deep")
        if not self.is_done and not self.inside and name.rpartition(":")[2] == "metadata":
            self.inside = self.depth

    def _end(self, _: str) -> None:
        if self.inside == self.depth:
            self.inside, self.is_done = 0, True
        self.depth -= 1

    def _text(self, text: str) -> None:
        if self.inside:
            self.length += len(text)
            if self.length > MAX_TEXT:
                raise BadDocument(f"SVG: more than {MAX_TEXT} characters of metadata")
            self.texts.append(text)


def _refuse_type(*_: Any) -> None:
    raise BadDocument("SVG: it declares a document type; such files are not read")
