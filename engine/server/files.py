"""Names from clients, resolved inside their folder or refused; listings of folders. Knows nothing of HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sigmagraph.engine.errors import EngineError

__all__ = ["Outside", "below", "resolve"]


class Outside(EngineError, ValueError):
    """A name that leads out of its folder."""

    code = "outside_folder"


def resolve(root: Path, *names: str) -> Path:
    """`root` and the names joined, refused where they lead outside; links are followed and must end inside too.

    The file need not exist. Empty names are skipped; a backslash is a character of a name, as on disk.
    """
    parts: list[str] = []
    for name in names:
        if "\0" in name or name.startswith("/") or not _fits(name):
            raise Outside(f"{name[:80]!r} is not a name inside {root.name}")
        parts += [part for part in PurePosixPath(name).parts if part != "."]
    if ".." in parts:
        raise Outside(f"{'/'.join(names)!r} leads out of {root.name}")
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise Outside(f"{'/'.join(names)!r} leads out of {root.name}")
    return path


def _fits(name: str) -> bool:
    """Whether a disk can hold it: 255 bytes a part, 3,000 in all, which leaves room for the folder round it."""
    try:
        written = name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return len(written) <= 3000 and all(len(part) <= 255 for part in written.split(b"/"))


def below(root: Path, *, recurse: bool = True) -> Iterator[Path]:
    """The files of a folder, hidden drafts left out; links to folders are not entered."""
    for directory, inner, names in os.walk(root):
        if not recurse:
            inner.clear()
        inner.sort()
        for name in sorted(names):
            if not name.startswith(".draft-"):
                yield Path(directory) / name
