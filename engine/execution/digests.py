"""Digests of files: BLAKE2 of the bytes, remembered while size and time of change stay, those of weights on disk too.

A first prompt would otherwise read every weight file from end to end before anything else: 22 s for SD3.5 Large with
its text encoders.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from threading import Lock

from sigmagraph.engine.errors import MissingFile, WriteFailed
from sigmagraph.engine.writing import make_folder, write_file

KEPT_FROM_BYTES = 64 << 20  # a smaller file is read again sooner than the list is written
Facts = tuple[int, int, str]
NOTHING: Facts = (-1, -1, "")


class Digests:
    """Those of one process; `kept` is the file in which those of large files outlive it. Safe for several threads."""

    def __init__(self, kept: Path) -> None:
        self._kept, self._lock = kept, Lock()
        self._known: dict[str, Facts] | None = None

    def of(self, path: Path) -> str:
        """The digest of a file. Raises `MissingFile`."""
        name = os.fspath(path.absolute())
        try:
            facts = path.stat()
            with self._lock:
                size, changed, digest = self._remembered().get(name, NOTHING)
            if (size, changed) == (facts.st_size, facts.st_mtime_ns):
                return digest
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError as error:
            raise MissingFile(path, error.strerror or "cannot be read") from error
        with self._lock:
            self._remembered()[name] = facts.st_size, facts.st_mtime_ns, digest
            if facts.st_size >= KEPT_FROM_BYTES:
                self._write()
        return digest

    def _remembered(self) -> dict[str, Facts]:
        if self._known is None:
            self._known = _read(self._kept)
        return self._known

    def _write(self) -> None:
        """What other processes wrote meanwhile stays. A list that cannot be written costs time later, nothing else."""
        large = {name: facts for name, facts in self._remembered().items() if facts[0] >= KEPT_FROM_BYTES}
        with contextlib.suppress(WriteFailed):
            make_folder(self._kept.parent)
            write_file(self._kept, json.dumps({**_read(self._kept), **large}).encode())


def _read(kept: Path) -> dict[str, Facts]:
    """The list, without what is not one: it is only a memory."""
    try:
        document = json.loads(kept.read_bytes())
        return {str(name): (int(size), int(changed), str(digest)) for name, (size, changed, digest) in document.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
