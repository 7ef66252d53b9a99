"""The names that saved files get: tokens in a prefix, subfolders, and the next free number."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path, PurePosixPath

from sigmagraph.engine.errors import BadValue, WriteFailed
from sigmagraph.engine.writing import make_folder

__all__ = ["Series", "series"]


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
        taken = re.compile(re.escape(self.stem) + r"_(\d+)_")
        try:
            found = [taken.match(entry.name) for entry in self.folder.iterdir()]
        except OSError as error:
            raise WriteFailed(self.folder, f"cannot be listed: {error.strerror or error}") from error
        return max((int(match[1]) for match in found if match), default=0)


def series(root: Path, prefix: str, width: int, height: int, now: datetime) -> Series:
    """The series that `prefix` names inside `root`; the folder is made. A prefix that leaves `root` is refused."""
    filled = _fill(prefix, width, height, now)
    path = PurePosixPath(filled.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in filled:
        raise BadValue("filename_prefix", prefix, "a path inside the output folder")
    stem = "" if filled.endswith("/") else path.name
    subfolder = (path if filled.endswith("/") else path.parent).as_posix()
    subfolder = "" if subfolder == "." else subfolder
    return Series(make_folder(root / subfolder), subfolder, stem)


def _fill(prefix: str, width: int, height: int, now: datetime) -> str:
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
