"""What owners may keep on disk by way of requests: a bound for each, one for all, and a rest of the disk left free.

    room --(owner's bytes + new ones)--> above the bound? count the folders anew, else 413
      |--(everybody's)-----------------> above the bound? count the folders anew, else 507
      +--(free bytes of the disk)------> too few? 507

An owner's folders are walked once, before the first file after a start; from then on what comes and goes is added up.
They are walked again where a file would be refused, and after an hour: files that were deleted by hand count no more.
Knows no HTTP.
"""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.jobs.job import LOCAL
from sigmagraph.engine.server.upload_notes import UploadNotes

__all__ = ["Bounds", "DiskFull", "Quota", "QuotaReached", "Room", "on_disk", "size_of", "unbounded"]

BLOCK = 4096
"""Bytes the smallest file takes of a disk, and a folder."""
COUNTED_S = 3600.0
REST = 20
"""Times as long as a walk took until the next one: a key has no more than a twentieth of a processor for them."""

Room = Callable[..., AbstractContextManager[Any]]
"""Room for a file at a path: `room(path, size, freed)`."""


class QuotaReached(EngineError):
    """The owner keeps as much as one key may; the message says how much."""

    code = "quota_reached"


class DiskFull(EngineError):
    """All owners keep as much as they may together, or the disk has too little left."""

    code = "disk_full"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes: for each key, for all keys together (None: what the disk has), and what stays free of the disk."""

    each: float
    in_all: float | None
    free: float


class Quota:
    """The bytes kept, by owner. Methods are called from any thread. Without keys only the disk is a bound.

    `folders` are those of an owner that are counted whole, `everybody` the owners there are; files that went elsewhere
    by request are `notes`.
    """

    def __init__(
        self,
        bounds: Bounds,
        folders: Callable[[str], Sequence[Path]],
        everybody: Callable[[], Iterable[str]],
        notes: UploadNotes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bounds, self._folders, self._everybody, self.notes, self._clock = bounds, folders, everybody, notes, clock
        self._used: Counter[str] = Counter()
        self._coming: Counter[str] = Counter()
        self._walked: dict[str, tuple[float, float]] = {}  # when, and how long it took
        self._lock = threading.Lock()

    def used(self, owner: str) -> int:
        """Bytes the owner keeps, files under way included."""
        return self._used[owner] + self._coming[owner]

    @contextmanager
    def room(self, owner: str, path: Path, size: int, freed: int = 0) -> Iterator[None]:
        """Room for a file in place of one of `freed` bytes, counted when the block ends well.

        Raises `QuotaReached` and `DiskFull`.
        """
        more, less = on_disk(size) + BLOCK * _folders_to_make(path.parent), on_disk(freed) if freed else 0
        self._refuse_when_full(owner, path, more, less)
        try:
            yield
            with self._lock:
                self._used[owner] += more - less
        finally:
            with self._lock:
                self._coming[owner] -= more
                if not self._coming[owner]:
                    del self._coming[owner]

    def give(self, owner: str, size: int) -> None:
        """A file of so many bytes is gone."""
        with self._lock:
            self._used[owner] -= on_disk(size)

    def _refuse_when_full(self, owner: str, path: Path, more: int, less: int) -> None:
        """Take the room, or raise."""
        if owner != LOCAL:
            self._count(owner, COUNTED_S)
            if self.used(owner) + more - less > self.bounds.each:
                self._count(owner, 0.0)
            if self.bounds.in_all is not None:
                self._count_everybody(more - less, self.bounds.in_all)
        with self._lock:
            if more > less:
                if owner != LOCAL:
                    self._refuse_above(owner, more - less)
                self._refuse_without_disk(path, more)
            self._coming[owner] += more

    def _refuse_above(self, owner: str, more: int) -> None:
        used, in_all = self.used(owner), self._total()
        if used + more > self.bounds.each:
            raise QuotaReached(
                f"{more} bytes more are too many: this key keeps {used} bytes of uploads and saved files, "
                f"and may keep {self.bounds.each:.0f}; delete some first"
            )
        if self.bounds.in_all is not None and in_all + more > self.bounds.in_all:
            raise DiskFull(
                f"{more} bytes more are too many: all keys together keep {in_all} bytes of uploads and saved files, "
                f"and may keep {self.bounds.in_all:.0f}"
            )

    def _refuse_without_disk(self, path: Path, more: int) -> None:
        there = next(folder for folder in path.parents if folder.is_dir())
        free = shutil.disk_usage(there).free - self._coming.total()
        if free - more < self.bounds.free:
            raise DiskFull(
                f"the disk is full: {free} bytes of it are free, of which {self.bounds.free:.0f} stay so; "
                f"{more} bytes more do not fit"
            )

    def _total(self) -> int:
        return sum(self.used(owner) for owner in {*self._used, *self._coming} - {LOCAL})

    def _count_everybody(self, more: int, most: float) -> None:
        everybody = sorted({*self._everybody()} - {LOCAL})
        for owner in everybody:
            self._count(owner, COUNTED_S)
        if self._total() + more > most:
            for owner in everybody:
                self._count(owner, 0.0)

    def _count(self, owner: str, age_s: float) -> None:
        """Walk the owner's folders, unless that was done less than `age_s` ago, or takes too much of the time."""
        at, took = self._walked.get(owner, (float("-inf"), 0.0))
        if self._clock() - at <= max(age_s, REST * took):
            return
        begun = self._clock()
        size = sum(map(_bytes_below, self._folders(owner))) + sum(map(on_disk, self.notes.sizes(owner)))
        with self._lock:
            self._used[owner], self._walked[owner] = size, (self._clock(), self._clock() - begun)


def unbounded(path: Path, size: int, freed: int = 0) -> AbstractContextManager[None]:
    """Room where nobody counts."""
    return nullcontext()


def on_disk(size: int) -> int:
    """What a file of that size takes of a disk: whole blocks, and one where it is empty."""
    return max(1, -(-size // BLOCK)) * BLOCK


def size_of(path: Path) -> int:
    """Bytes of the file there; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _folders_to_make(folder: Path) -> int:
    return next(count for count, parent in enumerate((folder, *folder.parents)) if parent.is_dir())


def _bytes_below(root: Path) -> int:
    """Bytes of every file and folder below; links are not followed, and drafts are counted by who writes them."""
    used, waiting = 0, [str(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        used += BLOCK
                    elif not entry.name.startswith(".draft-"):
                        used += on_disk(entry.stat(follow_symlinks=False).st_size)
        except OSError:  # it was deleted meanwhile, or is not there yet
            continue
    return used
