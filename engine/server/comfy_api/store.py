"""Assets on disk: content once per owner under its blake3 digest, a small record per asset. Knows no HTTP.

Records lie among the owner's own files, which the owner may write: what one says is checked before it is believed.
"""

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import blake3

from sigmagraph.engine.errors import BadDocument, BadValue, MissingFile
from sigmagraph.engine.graph.reading.document import parse_json
from sigmagraph.engine.server.quota import Room, size_of, unbounded
from sigmagraph.engine.writing import drafted, make_folder, write_file

__all__ = ["FOLDER", "SCHEME", "Asset", "AssetStore", "digest_of", "hex_of"]

FOLDER = "assets"
"""Where contents lie, below the owner's input folder, so that loader nodes take them by name."""
SCHEME = "blake3:"
AT_ONCE = 1024 * 1024
HEX = frozenset("0123456789abcdef")
ABANDONED_S = 3600.0
"""Nobody writes to a draft any more that was not written to for so long."""
MOST_RECORDS = 10_000
"""Records of one owner: lists read them all."""
LAST_MOMENT = 2.0**37
"""Seconds since 1970 that still have a date."""
KINDS = {"id": str, "hash": str, "size_bytes": int, "content_type": str, "file_path": str, "name": str}


@dataclass(frozen=True, slots=True)
class Asset:
    """One record. `file_path` is the owner's name for it, `name` what nodes call it; times are seconds since 1970.

    Several records may name one content: the editor's `/api/assets` gives them names, `tags` and notes of their own.
    """

    id: str
    hash: str
    size_bytes: int
    content_type: str
    file_path: str
    name: str
    created_at: float
    tags: Sequence[str] = ("input",)
    user_metadata: Mapping[str, Any] = field(default_factory=dict)
    updated_at: float | None = None


@dataclass(frozen=True, slots=True)
class AssetStore:
    """The assets of one owner: records below `records`, contents below `inputs / FOLDER`."""

    records: Path
    inputs: Path
    most_bytes: float
    room: Room = unbounded

    def add(self, file: IO[bytes], file_path: str, content_type: str, expected: str | None) -> tuple[Asset, bool]:
        """Keep a content; says whether it is new. Raises `BadValue` where the digest is another, or no room is left."""
        suffix = PurePosixPath(file_path).suffix.lower()[:16]
        folder = make_folder(self.inputs / FOLDER)
        found, size = digest_of(file)
        if expected is not None and expected.lower() != found:
            raise BadValue("expected_hash", expected[:80], f"{found}, the digest of the bytes that came")
        known = self.by_hash(found)
        if known is not None:
            return known, False
        used = _bytes_in(folder)
        if used + size > self.most_bytes:
            allowed = f"at most {self.most_bytes:.0f} bytes of assets, {used} of them used"
            raise BadValue("file", f"{size} bytes", allowed)
        self._refuse_when_full()
        name = found.removeprefix(SCHEME) + (suffix if suffix[1:].isalnum() else "")
        file.seek(0)
        with self.room(folder / name, size), drafted(folder, [name], replaces=True) as (draft, _):
            while piece := file.read(AT_ONCE):
                draft.write(piece)
        return self._record(
            Asset(str(uuid.uuid4()), found, size, content_type, file_path, _name(name), time.time())
        ), True

    def register(self, name: str, path: Path, file_path: str, content_type: str) -> tuple[Asset, bool]:
        """Take a file that lies in the input folder as an asset, without copying it."""
        with path.open("rb") as file:
            found, size = digest_of(file)
        known = self.by_hash(found)
        if known is not None:
            return known, False
        return self._record(Asset(str(uuid.uuid4()), found, size, content_type, file_path, name, time.time())), True

    def refer(self, known: Asset) -> Asset:
        """Another record of a content that is here."""
        self._refuse_when_full()
        return self.change(replace(known, id=str(uuid.uuid4()), created_at=time.time()))

    def change(self, asset: Asset, **changes: Any) -> Asset:
        """The record with other values, kept; its content stays what it is."""
        changed = replace(asset, updated_at=time.time(), **changes)
        self._write(changed)
        return changed

    def get(self, asset_id: str) -> Asset:
        """The record; raises `MissingFile`, also for one that this store did not write."""
        try:
            known = str(uuid.UUID(asset_id))
            record = parse_json(self._file(known).read_bytes())
        except (BadDocument, ValueError, OSError):
            record = None
        if not isinstance(record, dict) or record.get("id") != known or not _is_sound(record):
            raise MissingFile(asset_id[:80], "there is no such asset")
        return Asset(**record)

    def by_hash(self, digest: str) -> Asset | None:
        """The owner's asset of that content, where it is there still: files of the input folder come and go."""
        named = hex_of(digest.lower())
        if named is None:
            return None
        try:
            known = self.get((self.records / "by-hash" / named).read_text("utf-8"))
            return known if self._is_there(known) else None
        except (OSError, MissingFile):
            return None

    def _is_there(self, asset: Asset) -> bool:
        """Whether the file still holds what was recorded; one that was written to since is read."""
        with self.path(asset).open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size != asset.size_bytes:
                return False
            return found.st_mtime <= asset.created_at or digest_of(file)[0] == asset.hash

    def path(self, asset: Asset) -> Path:
        """Where the content lies."""
        return self.inputs / asset.name

    def delete(self, asset: Asset) -> None:
        """Forget the record; with the last one its content goes where it is this store's own."""
        index = self.records / "by-hash" / asset.hash.removeprefix(SCHEME)
        self._file(asset.id).unlink(missing_ok=True)
        other = next((each for each in self.all() if each.hash == asset.hash), None)
        if other is not None:
            write_file(index, other.id.encode())
            return
        index.unlink(missing_ok=True)
        if PurePosixPath(asset.name).parent == PurePosixPath(FOLDER):
            with suppress(FileNotFoundError):
                self.path(asset).unlink()

    def all(self) -> Iterator[Asset]:
        """Every record."""
        for path in self.records.glob("*.json"):
            with suppress(MissingFile):
                yield self.get(path.stem)

    def _record(self, asset: Asset) -> Asset:
        """The record, then what finds it by its content: a crash between leaves an asset that is merely stored."""
        self._refuse_when_full()
        make_folder(self.records / "by-hash")
        self._write(asset)
        write_file(self.records / "by-hash" / asset.hash.removeprefix(SCHEME), asset.id.encode())
        return asset

    def _write(self, asset: Asset) -> None:
        file, data = self._file(asset.id), json.dumps(asdict(asset)).encode()
        with self.room(file, len(data), size_of(file)):
            write_file(file, data)

    def _refuse_when_full(self) -> None:
        if self.records.is_dir() and sum(1 for _ in os.scandir(self.records)) > MOST_RECORDS:
            raise BadValue("file", "one more", f"at most {MOST_RECORDS} assets of one owner")

    def _file(self, asset_id: str) -> Path:
        return self.records / f"{asset_id}.json"


def digest_of(file: IO[bytes]) -> tuple[str, int]:
    """`blake3:<hex>` and the number of bytes."""
    digest, size = blake3.blake3(), 0
    while piece := file.read(AT_ONCE):
        digest.update(piece)
        size += len(piece)
    return SCHEME + digest.hexdigest(), size


def _is_sound(record: Mapping[str, Any]) -> bool:
    """Whether it says what this store writes: kinds, a digest, a place in the input folder, moments with a date."""
    tags, notes = record.get("tags", []), record.get("user_metadata", {})
    moments = [record.get("created_at"), record.get("updated_at") or 0.0]
    return (
        record.keys() <= Asset.__dataclass_fields__.keys()
        and all(type(record.get(name)) is kind for name, kind in KINDS.items())
        and all(isinstance(moment, float) and 0 <= moment < LAST_MOMENT for moment in moments)
        and isinstance(notes, dict)
        and isinstance(tags, list)
        and all(isinstance(tag, str) for tag in tags)
        and record["size_bytes"] >= 0
        and hex_of(record["hash"]) is not None
        and _is_below(record["name"])
    )


def _is_below(name: str) -> bool:
    """Whether a name leads nowhere but into its folder; what is sent is looked at once more, links followed."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name


def hex_of(digest: str) -> str | None:
    """The 64 digits of a digest, with or without its scheme."""
    named = digest.removeprefix(SCHEME)
    return named if len(named) == 64 and HEX.issuperset(named) else None


def _bytes_in(folder: Path) -> int:
    """Bytes of its files, drafts of uploads under way included; drafts that a killed server left are removed."""
    used, since = 0, time.time() - ABANDONED_S
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if entry.name.startswith(".draft-") and found.st_mtime < since:
                    Path(entry.path).unlink()
                else:
                    used += found.st_size
    return used


def _name(file_name: str) -> str:
    return f"{FOLDER}/{file_name}"
