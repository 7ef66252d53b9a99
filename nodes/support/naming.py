"""The names that saved files get: tokens in a prefix, subfolders, and the next free number."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path, PurePosixPath

from sigmagraph.engine.errors import BadValue, WriteFailed
from sigmagraph.engine.writing import filled_prefix, make_folder

__all__ = ["Series", "series"]


MOST_KNOWN = 1024


@dataclass(slots=True)
class Known:
    """The highest numbers of a folder's series, true as long as nobody else has written there."""

    changed_ns: int
    numbers: dict[str, int] = field(default_factory=dict)


KNOWN: dict[Path, Known] = {}
"""What this process knows of the folders it saves to, so that a folder of 16,000 files is not listed for each more."""


@dataclass(frozen=True, slots=True)
class Series:
    """Numbered files of one prefix: `folder/stem_00001_.png` and on. `subfolder` is relative, with forward slashes."""

    folder: Path
    subfolder: str
    stem: str

    def names(self, batch_index: int, suffix: str = ".png") -> Iterator[str]:
        """Names for one more file, from the first number above all that are taken."""
        stem = self.stem.replace("%batch_num%", str(batch_index))
        return (f"{stem}_{number:05}_{suffix}" for number in count(self._last() + 1))

    def _last(self) -> int:
        """The highest number in use; a prefix with `%batch_num%` counts by the prefix as written, as ComfyUI does."""
        known = KNOWN.get(self.folder)
        if known is not None and known.changed_ns != _changed_ns(self.folder):
            KNOWN.pop(self.folder, None)  # somebody else wrote there: nothing is known of any series
            known = None
        return known.numbers[self.stem] if known is not None and self.stem in known.numbers else self._listed()

    def took(self, path: Path) -> None:
        """One of the names is in use now; said by who wrote the file."""
        match = re.fullmatch(re.escape(self.stem) + r"_(\d+)_\.\w+", path.name)
        if match is None:  # `%batch_num%` stood in the prefix
            return
        if len(KNOWN) > MOST_KNOWN:
            KNOWN.clear()
        known = KNOWN.setdefault(self.folder, Known(0))
        if len(known.numbers) > MOST_KNOWN:
            known.numbers.clear()
        known.numbers[self.stem] = int(match[1])
        known.changed_ns = _changed_ns(self.folder)

    def _listed(self) -> int:
        taken = re.compile(re.escape(self.stem) + r"_(\d+)_")
        try:
            found = [taken.match(entry.name) for entry in self.folder.iterdir()]
        except OSError as error:
            raise WriteFailed(self.folder, f"cannot be listed: {error.strerror or error}") from error
        return max((int(match[1]) for match in found if match), default=0)


def _changed_ns(folder: Path) -> int:
    """When an entry of the folder last came or went; 0 where that cannot be said."""
    with suppress(OSError):
        return folder.stat().st_mtime_ns
    return 0


def series(root: Path, prefix: str, width: int, height: int, now: datetime) -> Series:
    """The series that `prefix` names inside `root`; the folder is made. A prefix that leaves `root` is refused."""
    filled = filled_prefix(prefix, width, height, now)
    path = PurePosixPath(filled.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in filled:
        raise BadValue("filename_prefix", prefix, "a path inside the output folder")
    stem = "" if filled.endswith("/") else path.name
    subfolder = (path if filled.endswith("/") else path.parent).as_posix()
    subfolder = "" if subfolder == "." else subfolder
    return Series(make_folder(root / subfolder), subfolder, stem)
