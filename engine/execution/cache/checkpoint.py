"""Unfinished work on disk: append-only logs, one per piece of work, found by content key. Records are opaque bytes.

Appending is one write, so a killed process loses at most the record it was writing; that one fails its checksum and
is cut off. Power cuts are not guarded against: nothing here waits for the disk.
"""

import fcntl
import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

from sigmagraph.engine.graph.kept import Log
from sigmagraph.engine.units import DAY_S

__all__ = ["Checkpoints", "KeptWork"]

HEAD = Struct("<II")  # length, checksum
SUFFIX = ".part"


@dataclass
class Checkpoints:
    """All logs of a folder. What nobody came back for goes after `keep_s`, or when all exceed `max_bytes`."""

    folder: Path
    keep_s: float = 2 * DAY_S
    max_bytes: int = 8 << 30
    _is_swept: bool = field(default=False, init=False)

    def of(self, key: str) -> "KeptWork":
        """The unfinished work of the node with this content key."""
        if not self._is_swept:
            self._is_swept = True
            with suppress(OSError):
                self.sweep()
        return KeptWork(self.folder, key)

    def sweep(self, now: float | None = None) -> None:
        """Remove what is too old, then the oldest until the rest fits."""
        moment = time.time() if now is None else now
        files = [(path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob(f"*{SUFFIX}")]
        room = self.max_bytes
        for changed, size, path in sorted(files, reverse=True):
            room -= size
            if room < 0 or moment - changed > self.keep_s:
                path.unlink(missing_ok=True)


@dataclass
class KeptWork:
    """The work of one node; a node may do several pieces one after the other."""

    folder: Path
    key: str
    _begun: int = field(default=0, init=False)

    def begin(self) -> Log:
        """The next piece's log; one that keeps nothing if another process holds it or the folder cannot be written."""
        path = self.folder / f"{self.key}-{self._begun}{SUFFIX}"
        self._begun += 1
        descriptor = -1
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:  # its holder finished between our open and our lock
                raise FileNotFoundError(path)
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            return NoLog()
        return FileLog(path, descriptor)


class FileLog:
    """One file, held for as long as the work goes on."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._records, sound = _read(path.read_bytes())
        os.ftruncate(descriptor, sound)

    def records(self) -> list[bytes]:
        """What was there when it was opened."""
        return self._records

    def append(self, data: bytes) -> None:
        """One write. A full disk ends the keeping, not the work."""
        if self._descriptor < 0:
            return
        record = HEAD.pack(len(data), zlib.crc32(data)) + data
        try:
            is_whole = os.write(self._descriptor, record) == len(record)
        except OSError:
            is_whole = False
        if not is_whole:
            self.discard()

    def clear(self) -> None:
        """Begin anew, in the same file."""
        self._records = []
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class NoLog:
    """Keeps nothing."""

    def records(self) -> list[bytes]:
        """None, ever."""
        return []

    def append(self, data: bytes) -> None:
        """Nothing."""

    def clear(self) -> None:
        """Nothing."""

    def discard(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _read(data: bytes) -> tuple[list[bytes], int]:
    """The records before the first damaged one, and where that begins."""
    records: list[bytes] = []
    at = 0
    while at + HEAD.size <= len(data):
        length, checksum = HEAD.unpack_from(data, at)
        record = data[at + HEAD.size : at + HEAD.size + length]
        if len(record) != length or zlib.crc32(record) != checksum:
            break
        records.append(record)
        at += HEAD.size + length
    return records, at
