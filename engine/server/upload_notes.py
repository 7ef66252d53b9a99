"""Which files owners uploaded into folders that jobs write to as well: a list on disk for each owner. Knows no HTTP.

What jobs made does not count as kept by request, and nothing else tells the two apart.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sigmagraph.engine.errors import WriteFailed
from sigmagraph.engine.writing import make_folder, write_file

__all__ = ["UploadNotes"]


class UploadNotes:
    """A file of lines in `folder` for each owner, a path on each; what is gone is left out when they are read."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()

    def add(self, owner: str, path: Path) -> None:
        """Note a file that came; raises `WriteFailed`."""
        with self._lock:
            file = make_folder(self._folder) / owner
            try:
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(str(path)) + "\n")
            except OSError as error:
                raise WriteFailed(file, f"cannot be written: {error.strerror or error}") from error

    def sizes(self, owner: str) -> list[int]:
        """Bytes of each file that is there still."""
        with self._lock:
            file = self._folder / owner
            noted = list(_noted(file))
            found = {path: path.stat().st_size for path in dict.fromkeys(noted) if path.is_file()}
            if len(found) < len(noted):
                with suppress(WriteFailed):
                    write_file(file, "".join(json.dumps(str(path)) + "\n" for path in found).encode())
            return list(found.values())


def _noted(file: Path) -> Iterator[Path]:
    """The paths; a line that a crash cut off is left out."""
    with suppress(FileNotFoundError):
        for line in file.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError):
                if isinstance(path := json.loads(line), str):
                    yield Path(path)
