"""The disk tier: one file per entry, checked on reading, under a byte budget, written by a thread of its own.

Only what packs is written (embeddings, latents, images; never weights), and only what took some time to make.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

from sigmagraph.engine.errors import WriteFailed
from sigmagraph.engine.execution.cache.memory import Entry
from sigmagraph.engine.execution.cache.serialise import DamagedError, Serialiser, UnpackableError
from sigmagraph.engine.units import DAY_S
from sigmagraph.engine.writing import make_folder, write_file

SUFFIX = ".entry"
CHEAPEST_MS = 1.0
STALE_S = 3600.0
"""A draft this old belongs to a process that was killed while it wrote."""


@dataclass(slots=True)
class _File:
    """One entry on disk: its bytes, what it cost to make, and when it was last of use."""

    size: int
    milliseconds: int
    used: float


Report = Callable[[str], None]


class DiskTier:
    """Entries by key in a folder. What an earlier process left there is found again."""

    def __init__(
        self,
        folder: Path,
        packing: Serialiser,
        budget_bytes: int,
        report: Report = lambda message: None,
        cheapest_ms: float = CHEAPEST_MS,
    ) -> None:
        self.folder, self.packing, self.budget_bytes = make_folder(folder), packing, budget_bytes
        self.report, self.cheapest_ms = report, cheapest_ms
        self._files: dict[str, _File] = {}
        self._lock = Lock()
        self._used = 0
        self._queue: SimpleQueue[tuple[str, Entry] | Callable[[], None] | None] = SimpleQueue()
        self._writer: Thread | None = None
        self.unwritten = 0
        self._scan()

    def __contains__(self, key: str) -> bool:
        return key in self._files

    def __len__(self) -> int:
        return len(self._files)

    @property
    def used_bytes(self) -> int:
        """Bytes of all files."""
        return self._used

    def get(self, key: str) -> Entry | None:
        """The entry; a file that is damaged or gone is reported, removed, and counts as absent."""
        file = self._files.get(key)
        if file is None:
            return None
        path = self._path(key, file)
        try:
            entry = self.packing.read(key, path.read_bytes())
        except (OSError, DamagedError) as error:
            self.report(f"{path}: {error}; the entry is removed and will be computed again")
            self._remove(key)
            return None
        file.used = time.time()
        with suppress(OSError):  # removed since by another process, or it belongs to somebody else
            os.utime(path, (file.used, file.used))
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Have the entry written, if it is worth it."""
        if entry.milliseconds < self.cheapest_ms or key in self._files:
            return
        with self._lock:
            if self._writer is None:
                self._writer = Thread(target=self._write_all, name="cache writer", daemon=True)
                self._writer.start()
            self.unwritten += 1
        self._queue.put((key, entry))

    def flush(self) -> None:
        """Wait until everything handed over so far is written."""
        if self._writer is not None:
            gate = Lock()
            gate.acquire()
            self._queue.put(gate.release)
            gate.acquire()

    def close(self) -> None:
        """Write what is left and end the thread."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            self._queue.put(None)
            writer.join()

    def _write_all(self) -> None:
        while (task := self._queue.get()) is not None:
            if callable(task):
                task()
                continue
            try:
                self._write(*task)
            except Exception as error:  # noqa: BLE001  # a device out of memory, say: jobs wait for this thread's flush
                self.report(f"cache entry {task[0]}: {type(error).__name__}: {error}; it stays in memory only")
            with self._lock:
                self.unwritten -= 1

    def _write(self, key: str, entry: Entry) -> None:
        try:
            data = self.packing.write(key, entry)
            if len(data) > self.budget_bytes or key in self._files:
                return
            file = _File(len(data), int(entry.milliseconds), time.time())
            path = self._path(key, file)
            make_folder(path.parent)
            write_file(path, data)
        except UnpackableError:
            return
        except WriteFailed as error:
            self.report(f"{error}; the entry stays in memory only")
            return
        with self._lock:
            self._files[key] = file
            self._used += file.size
        self._shrink()

    def _shrink(self) -> None:
        """Remove what is cheapest to make again per byte, an entry losing half its worth with each day unused."""
        now = time.time()
        while self._files and self._used > self.budget_bytes:
            with self._lock:
                key = min(self._files, key=lambda name: _worth(self._files[name], now))
            self._remove(key)

    def _remove(self, key: str) -> None:
        with self._lock:
            file = self._files.pop(key, None)
            self._used -= file.size if file is not None else 0
        if file is not None:
            with suppress(OSError):  # not ours to remove
                self._path(key, file).unlink(missing_ok=True)

    def _path(self, key: str, file: _File) -> Path:
        return self.folder / key[:2] / f"{key}-{file.milliseconds}{SUFFIX}"

    def _scan(self) -> None:
        """Find what is there. Of two files of one key, written by two processes, one goes, as do drafts of the dead."""
        for path in self.folder.glob("??/.draft-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
        for path in self.folder.glob(f"??/*{SUFFIX}"):
            key, _, milliseconds = path.name.removesuffix(SUFFIX).rpartition("-")
            if not key or not milliseconds.isdigit():
                continue
            with suppress(OSError):  # another process may remove it meanwhile
                facts = path.stat()
                self._remove(key)
                self._files[key] = _File(facts.st_size, int(milliseconds), facts.st_mtime)
                self._used += facts.st_size
        self._shrink()


def _worth(file: _File, now: float) -> float:
    return (file.milliseconds + 1) / max(1, file.size) * float(0.5 ** ((now - file.used) / DAY_S))
