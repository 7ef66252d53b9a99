"""Files appear whole or not at all: everything is written beside its place and then renamed. Standard library only."""

import os
import re
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import Condition, Thread
from typing import BinaryIO, Self

from sigmagraph.engine.errors import WriteFailed

if sys.platform != "win32":
    import fcntl

__all__ = ["WriteBehind", "drafted", "filled_prefix", "locks", "make_folder", "write_file", "write_new"]

MOST_WAITING = 16 << 20  # bytes that may wait to be written
PLACE = 4 << 20  # bytes of a place that is lent
DRAFT = ".draft-"
STALE_S = 3600.0  # a draft that nobody has written to, or locks, for so long is of a process that was killed


def make_folder(folder: Path) -> Path:
    """The folder, made if it was not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(folder, error) from error
    return folder


def filled_prefix(prefix: str, width: int, height: int, now: datetime) -> str:
    """Replace `%width%`, `%height%` and the parts of the local time; other tokens stay as they are."""
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.year),
        "month": f"{now.month:02}",
        "day": f"{now.day:02}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
    }
    return re.sub(r"%(\w+)%", lambda token: values.get(token[1], token[0]), prefix)


def write_file(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, replacing what was there in one step."""
    draft = _draft(path, data)
    try:
        draft.replace(path)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def write_new(folder: Path, names: Iterable[str], data: bytes) -> Path:
    """Write `data` under the first of `names` that is free, so that two writers never share one."""
    draft = _draft(folder / "new", data)
    try:
        for name in names:
            with suppress(FileExistsError):
                return _claim(draft, folder / name)
    except OSError as error:
        raise _failed(folder, error) from error
    finally:
        draft.unlink(missing_ok=True)
    raise WriteFailed(folder, "every name for the new file is taken")


@contextmanager
def drafted(folder: Path, names: Iterable[str], *, replaces: bool = False) -> Iterator[tuple[BinaryIO, list[Path]]]:
    """A file to write to piece by piece. When the block ends well it gets the first free name, or the first there is.

    The list holds its path then. Nothing is left behind if the block fails.
    """
    _sweep(folder)
    draft, where = folder / f"{DRAFT}{secrets.token_hex(8)}", list[Path]()
    try:
        with draft.open("xb") as file:
            locks(file)
            yield file, where
        for name in names:
            with suppress(FileExistsError):
                where.append(draft.replace(folder / name) if replaces else _claim(draft, folder / name))
                return
    except OSError as error:
        raise _failed(folder, error) from error
    finally:
        draft.unlink(missing_ok=True)
    raise WriteFailed(folder, "every name for the new file is taken")


class WriteBehind:
    """Writes in a thread of its own, in order, while its caller makes what comes next.

    Used in a `with` block, which ends when everything is written. At most 16 MiB wait, or one piece that is larger.
    What was handed over must stay as it is. An error in writing is raised at the next call or at the end of the block.

    `place` lends memory that is used again and again: memory that comes and goes with every piece is mapped, cleared
    and given back by the kernel each time, which can take longer than the work.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._waiting, self._bytes = file, deque[tuple[memoryview, bytearray | None]](), 0
        self._free, self._made = list[bytearray](), 0
        self._lent: bytearray | None = None
        self._changed, self._is_ended, self._error = Condition(), False, list[Exception]()
        self._thread = Thread(target=self._write_all, name="write-behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._is_ended = True
            if kind is not None:
                self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()
        if kind is None:
            self._raise_error()

    def __call__(self, data: memoryview) -> None:
        """Hand over the next bytes; waits where too many are waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._bytes or self._bytes + data.nbytes <= MOST_WAITING)
            self._raise_error()
            self._waiting.append((data, self._lent))
            self._lent = None
            self._bytes += data.nbytes
            self._changed.notify_all()

    def place(self, size_bytes: int) -> memoryview:
        """Memory to make the next bytes in, which must be what is handed over next. Waits until it is free."""
        if size_bytes > PLACE:
            return memoryview(bytearray(size_bytes))
        with self._changed:
            if self._lent is None and not self._free and self._made < MOST_WAITING // PLACE:
                self._free.append(bytearray(PLACE))
                self._made += 1
            self._changed.wait_for(lambda: self._error or self._lent is not None or self._free)
            self._raise_error()
            self._lent = self._lent if self._lent is not None else self._free.pop()
            return memoryview(self._lent)[:size_bytes]

    def _raise_error(self) -> None:
        if self._error:
            raise self._error[0]

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_ended)
                if not self._waiting:
                    return
                data, lent = self._waiting.popleft()
            try:
                self._file.write(data)
            except Exception as error:  # noqa: BLE001  # raised where the caller is
                with self._changed:
                    self._error.append(error)
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= data.nbytes
                if lent is not None:
                    self._free.append(lent)
                del data
                self._changed.notify_all()


def _sweep(folder: Path) -> None:
    """Remove what writers left in a folder that were killed: old drafts that no process holds locked."""
    for draft in folder.glob(f"{DRAFT}*"):
        with suppress(OSError), draft.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > STALE_S and locks(file):
                draft.unlink()


def locks(file: BinaryIO) -> bool:
    """Whether the file is this process's own now, until it is closed; no where another holds it, or none can."""
    if sys.platform == "win32":
        return False
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _claim(draft: Path, path: Path) -> Path:
    """Give the draft its name unless it is taken; a hard link is the one rename that refuses to overwrite."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: check, then rename
        if path.exists():
            raise FileExistsError(path) from None
        draft.replace(path)
    return path


def _draft(path: Path, data: bytes) -> Path:
    """`data` in a new hidden file of the same folder; nothing stays behind if it does not fit."""
    draft = path.parent / f"{DRAFT}{secrets.token_hex(8)}"
    try:
        with draft.open("xb") as file:
            file.write(data)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise _failed(path, error) from error
    return draft


def _failed(path: Path, error: OSError) -> WriteFailed:
    return WriteFailed(path, f"cannot be written: {error.strerror or error}")
