"""Digests of files: BLAKE3 of the bytes, remembered while size and time of change stay, those of weights on disk too.

A first prompt reads every weight file from end to end before anything else: SD3.5 Large with its text encoders, 28 GB,
takes 5 s of processor time by BLAKE3 where BLAKE2 took 22 to 25. What was locked by BLAKE2 is still checked by it.
"""

import contextlib
import hashlib
import json
import os
import re
from io import BufferedReader
from pathlib import Path
from threading import Lock
from typing import Any, cast

from blake3 import blake3

from sigmagraph.engine.errors import MissingFile, WriteFailed
from sigmagraph.engine.writing import make_folder, write_file

KEPT_FROM_BYTES = 64 << 20  # a smaller file is read again sooner than the list is written
DIGEST_BYTES = 16
EARLIER = re.compile(r"[0-9a-f]{32}")  # BLAKE2's, without its name
EARLIER_MARK = "#blake2b"  # behind a file's name in the list
Facts = tuple[int, int, str]
NOTHING: Facts = (-1, -1, "")


class Digests:
    """Those of one process; `kept` is the file in which those of large files outlive it. Safe for several threads."""

    def __init__(self, kept: Path) -> None:
        self._kept, self._lock = kept, Lock()
        self._known: dict[str, Facts] | None = None

    def of(self, path: Path, like: str | None = None) -> str:
        """The digest of a file, `blake3:` and 32 digits, or of the kind that `like` is of. Raises `MissingFile`."""
        is_earlier = like is not None and EARLIER.fullmatch(like) is not None
        name = os.fspath(path.absolute()) + EARLIER_MARK * is_earlier
        try:
            facts = path.stat()
            with self._lock:
                size, changed, digest = self._remembered().get(name, NOTHING)
            if (size, changed) == (facts.st_size, facts.st_mtime_ns):
                return digest
            with path.open("rb") as file:
                digest = _blake2b(file) if is_earlier else _blake3(file)
        except OSError as error:
            raise MissingFile(path, error.strerror or "cannot be read") from error
        with self._lock:
            self._remembered()[name] = facts.st_size, facts.st_mtime_ns, digest
            if facts.st_size >= KEPT_FROM_BYTES:
                self._write()
        return digest

    def known(self, path: Path) -> str | None:
        """The digest of a file as it is now, where one was made before; nothing is read for it."""
        facts = path.stat()
        with self._lock:
            size, changed, digest = self._remembered().get(os.fspath(path.absolute()), NOTHING)
        return digest if (size, changed) == (facts.st_size, facts.st_mtime_ns) else None

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


def _blake3(file: BufferedReader) -> str:
    hasher: Any = hashlib.file_digest(file, cast(Any, blake3))  # it has what hashlib's have, and digests of any length
    return f"blake3:{hasher.hexdigest(DIGEST_BYTES)}"


def _blake2b(file: BufferedReader) -> str:
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def _read(kept: Path) -> dict[str, Facts]:
    """The list, without what is not one: it is only a memory. Digests of before BLAKE3 stand there without a mark."""
    try:
        document = json.loads(kept.read_bytes())
        return {
            str(name) + EARLIER_MARK * _is_unmarked(name, digest): (int(size), int(changed), str(digest))
            for name, (size, changed, digest) in document.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _is_unmarked(name: str, digest: object) -> bool:
    return EARLIER.fullmatch(str(digest)) is not None and not str(name).endswith(EARLIER_MARK)
