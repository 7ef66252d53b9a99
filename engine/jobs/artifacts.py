"""Where finished files are kept: a folder, or any place fsspec has a name for (`s3://bucket/prefix`, `sftp://...`).

A file appears whole or not at all. Names are `owner/kind/subfolder/filename`, made here and nowhere else.
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec  # type: ignore[import-untyped]  # it has no types of its own

from sigmagraph.engine.errors import BadValue, MissingFile, WriteFailed

__all__ = ["Artifact", "Artifacts", "content_type", "entries", "keep_outputs"]

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"})
"""There an upload becomes visible when it is complete, and renaming is copying."""

CONTENT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a job made, as the node that made it names it."""

    owner: str
    kind: str
    subfolder: str
    filename: str

    @property
    def name(self) -> str:
        """Its name in the store; raises `BadValue` for a name that leads outside."""
        parts = [self.owner, self.kind, *PurePosixPath(self.subfolder).parts, self.filename]
        if any(part in ("", ".", "..", "/") or "/" in part or "\\" in part or "\0" in part for part in parts):
            raise BadValue("artifact", "/".join(parts), "a name inside its owner's folder")
        return "/".join(parts)


class Artifacts:
    """Files by name. Blocking; called from threads."""

    def __init__(self, url: str, **options: Any) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url, **options)
        protocols = self._files.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._is_object_store = not names.isdisjoint(OBJECT_STORES)

    def write(self, artifact: Artifact, data: bytes) -> None:
        """Keep a file, replacing one of that name in one step."""
        path = self._path(artifact)
        draft = path if self._is_object_store else f"{path.rpartition('/')[0]}/.draft-{secrets.token_hex(8)}"
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(draft, data)
            if draft != path:
                self._files.mv(draft, path)
        except OSError as error:
            with suppress(OSError):
                self._files.rm_file(draft)
            raise WriteFailed(artifact.name, f"cannot be kept: {error.strerror or error}") from error

    def keep(self, artifact: Artifact, path: Path) -> None:
        """Keep a copy of a file that a node wrote."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MissingFile(path, error.strerror or "cannot be read") from error
        self.write(artifact, data)

    def read(self, artifact: Artifact) -> bytes:
        """The contents; raises `MissingFile`."""
        try:
            data: bytes = self._files.cat_file(self._path(artifact))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingFile(artifact.name, "not there, or no longer kept") from error
        return data

    def delete(self, artifact: Artifact) -> None:
        """Forget a file; nothing happens if it is not there, or could never be."""
        with suppress(FileNotFoundError, BadValue):
            self._files.rm_file(self._path(artifact))

    def _path(self, artifact: Artifact) -> str:
        return f"{self._root.rstrip('/')}/{artifact.name}"


def keep_outputs(store: Artifacts, owner: str, outputs: Mapping[str, Any], folder: Path) -> None:
    """Keep a copy of every output file (not of previews) that a run's nodes say they wrote below `folder`."""
    for ui in outputs.values():
        for entry in entries(ui):
            if entry["kind"] == "output":
                store.keep(Artifact(owner, **entry), folder / entry["subfolder"] / entry["filename"])


def content_type(filename: str) -> str:
    """What a browser may be told; anything that could carry a script is bytes."""
    return CONTENT_TYPES.get(PurePosixPath(filename.lower()).suffix, "application/octet-stream")


def entries(ui: Any) -> list[dict[str, str]]:
    """The files in a node's user-interface record: entries with a file name, in any of its lists."""
    groups = ui.values() if isinstance(ui, dict) else ()
    found = [entry for group in groups if isinstance(group, list | tuple) for entry in group]
    return [
        {
            "kind": str(entry.get("type", "output"))[:16],
            "subfolder": str(entry.get("subfolder", "")),
            "filename": str(entry["filename"]),
        }
        for entry in found
        if isinstance(entry, dict) and "filename" in entry
    ]
