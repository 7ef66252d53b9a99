"""Stored workflows on disk: a folder per name, a file per version, never overwritten. Knows no HTTP."""

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import BadDocument, BadValue, CorruptFile, MissingFile
from sigmagraph.engine.graph.reading.document import parse_json
from sigmagraph.engine.server.quota import Room, unbounded
from sigmagraph.engine.writing import make_folder, write_new

__all__ = ["Library", "Stored"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One version. `parameters`: name -> `NODE.INPUT`, or several; `outputs`: name -> node id.

    `document` is what was sent.
    """

    name: str
    version: int
    saved_at: float
    prompt: Mapping[str, Any]
    document: Mapping[str, Any] | None = None
    parameters: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True)
class Library:
    """The stored workflows of one owner."""

    root: Path
    room: Room = unbounded

    def names(self) -> list[str]:
        """Every name with a version, sorted; a folder may be empty: its last version was deleted, or never came."""
        if not self.root.is_dir():
            return []
        return sorted(
            folder.name for folder in self.root.iterdir() if NAME.fullmatch(folder.name) and any(_versions(folder))
        )

    def versions(self, name: str) -> list[int]:
        """The versions of a name, oldest first; raises `MissingFile` where there is none."""
        folder = self._folder(name)
        found = _versions(folder)
        if not found:
            raise MissingFile(name, "there is no stored workflow of that name")
        return sorted(found)

    def save(self, stored: Stored) -> Stored:
        """Keep it as the next version of its name."""
        folder = self._folder(stored.name)
        last = max(_versions(folder), default=0)
        content = {**asdict(stored), "saved_at": time.time()}
        del content["version"]
        data = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self.room(folder / "new", len(data)):
            path = write_new(make_folder(folder), (f"{number}.json" for number in count(last + 1)), data)
        return self.read(stored.name, int(path.stem))

    def read(self, name: str, version: int | None = None) -> Stored:
        """A version, the newest where none is named."""
        known = self.versions(name)
        wanted = known[-1] if version is None else version
        if wanted not in known:
            raise MissingFile(f"{name} version {wanted}", f"is not stored; there are {_listed(known)}")
        path = self._folder(name) / f"{wanted}.json"
        try:
            stored = Stored(**parse_json(path.read_bytes()), version=wanted)
        except (BadDocument, OSError, ValueError, TypeError) as error:
            raise CorruptFile(path.name, f"no stored workflow: {error}") from error
        if not _is_sound(stored):
            raise CorruptFile(path.name, "no stored workflow: a field is not of its kind")
        return stored

    def delete(self, name: str, version: int | None = None) -> None:
        """Forget a version, or the name with all of them."""
        if version is None:
            self.versions(name)
            shutil.rmtree(self._folder(name))
            return
        stored = self.read(name, version)
        (self._folder(name) / f"{stored.version}.json").unlink()

    def _folder(self, name: str) -> Path:
        if not NAME.fullmatch(name) or name.endswith((".", " ")):
            raise BadValue("name", name, "1 to 100 letters, digits, spaces, dots, hyphens and underscores")
        return self.root / name


def _is_sound(stored: Stored) -> bool:
    """Whether each field is of its kind: owners may write these files by `/userdata`, as they like."""
    mappings = (stored.prompt, stored.parameters, stored.outputs, stored.document or {})
    if not all(isinstance(mapping, dict) for mapping in mappings) or not isinstance(stored.saved_at, int | float):
        return False
    several = (found if isinstance(found, list) else [found] for found in stored.parameters.values())
    texts = (stored.name, stored.description, *stored.outputs.values(), *chain.from_iterable(several))
    return all(isinstance(text, str) for text in texts)


def _versions(folder: Path) -> list[int]:
    """The versions in a folder, in no order; none where there is no such folder."""
    return [int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal()]


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions[-10:]))
