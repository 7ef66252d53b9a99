"""Values as bytes and back, without knowing a tensor library: who has one brings a `Packer` for it.

Plain JSON values, tuples and registered records are taken apart; anything else that no packer takes is not written.
A file is `magic, length of the head, head (JSON), blobs, digest of all that`; the digest is checked first.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sigmagraph.engine.execution.cache.memory import Entry, InnerUi

MAGIC = b"SGENTRY1"
DIGEST_BYTES = 16


class UnpackableError(TypeError):
    """A part of the value that no packer takes: the entry stays in memory only."""


class DamagedError(ValueError):
    """The bytes are not what was written."""


@dataclass(frozen=True, slots=True)
class Packer:
    """Values of one kind as bytes and back; `name` is written beside them."""

    name: str
    takes: Callable[[Any], bool]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


@dataclass(frozen=True)
class Serialiser:
    """Everything that can be written: packers for leaves, and record classes that are taken apart field by field."""

    packers: Sequence[Packer] = ()
    records: Sequence[type] = ()

    def write(self, key: str, entry: Entry) -> bytes:
        """An entry as the bytes of a file; raises `UnpackableError`."""
        blobs: list[bytes] = []
        inner = [
            [shown.suffix, shown.class_type, self._down(dict(shown.ui), blobs), shown.display_id]
            for shown in entry.inner_ui
        ]
        head = {
            "key": key,
            "outputs": [self._down(values, blobs) for values in entry.outputs],
            "ui": self._down(dict(entry.ui), blobs) if entry.ui is not None else None,
            "milliseconds": entry.milliseconds,
            "inner": inner,
            "blobs": [len(blob) for blob in blobs],
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        body = b"".join((MAGIC, len(text).to_bytes(8, "big"), text, *blobs))
        return body + digest(body)

    def read(self, key: str, data: bytes) -> Entry:
        """The entry in the bytes of a file; raises `DamagedError`."""
        body, mark = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if not body.startswith(MAGIC) or digest(body) != mark:
            raise DamagedError("its digest does not match")
        start = len(MAGIC) + 8
        end = start + int.from_bytes(body[len(MAGIC) : start], "big")
        head = json.loads(body[start:end])
        if head["key"] != key:
            raise DamagedError(f"it belongs to another key ({head['key']})")
        blobs = _cut(memoryview(body)[end:], head["blobs"])
        try:
            outputs = tuple(self._up(values, blobs) for values in head["outputs"])
            ui = self._up(head["ui"], blobs) if head["ui"] is not None else None
            inner = tuple(
                InnerUi(suffix, kind, self._up(shown, blobs), *display)
                for suffix, kind, shown, *display in head["inner"]
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DamagedError(f"it was written by another version ({error})") from error
        return Entry(outputs, ui, head["milliseconds"], inner)

    def _down(self, value: Any, blobs: list[bytes]) -> Any:
        """A value as JSON: containers are marked, `[mark, ...]`, so that nothing can be confused."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return ["float", value.hex()]
        if kind in (list, tuple):
            return [kind.__name__, *(self._down(item, blobs) for item in value)]
        if kind is dict:
            if not all(type(name) is str for name in value):
                raise UnpackableError("a dict with keys that are not strings")
            return ["dict", {name: self._down(item, blobs) for name, item in value.items()}]
        if kind in self.records:
            parts = {field.name: self._down(getattr(value, field.name), blobs) for field in fields(value)}
            return ["record", kind.__name__, parts]
        for packer in self.packers:
            if packer.takes(value):
                blobs.append(packer.pack(value))
                return ["packed", packer.name, len(blobs) - 1]
        raise UnpackableError(kind.__name__)

    def _up(self, value: Any, blobs: Sequence[bytes]) -> Any:
        if not isinstance(value, list):
            return value
        mark, *rest = value
        match mark:
            case "float":
                return float.fromhex(rest[0])
            case "list":
                return [self._up(item, blobs) for item in rest]
            case "tuple":
                return tuple(self._up(item, blobs) for item in rest)
            case "dict":
                return {name: self._up(item, blobs) for name, item in rest[0].items()}
            case "record":
                made = {name: self._up(part, blobs) for name, part in rest[1].items()}
                return self._record(rest[0], made)
        packer = next((known for known in self.packers if known.name == rest[0]), None)
        if packer is None:
            raise DamagedError(f"it holds a {rest[0]!r} that nobody here reads")
        return packer.unpack(blobs[rest[1]])

    def _record(self, name: str, parts: Mapping[str, Any]) -> Any:
        kind: Callable[..., Any] | None = next((record for record in self.records if record.__name__ == name), None)
        if kind is None:
            raise DamagedError(f"it holds a record {name!r} that is not known any more")
        return kind(**parts)


def digest(body: bytes) -> bytes:
    """The mark at the end of a file."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def _cut(body: memoryview, lengths: Sequence[int]) -> list[bytes]:
    blobs, at = [], 0
    for length in lengths:
        blobs.append(bytes(body[at : at + length]))
        at += length
    if at != len(body):
        raise DamagedError("its length does not match")
    return blobs
