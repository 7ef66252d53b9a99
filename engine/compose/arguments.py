"""What Python's face is called with: paths and callbacks, looked at before anything is opened."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sigmagraph.engine.errors import BadValue

OPTIONS = {"--set": "changes", "--plugin": "plugins"}  # called otherwise than in Python; all others alike


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Within it, what an error calls by its option on the command line is called by the argument's name."""
    try:
        yield
    except BadValue as error:
        if not error.place.startswith("--"):
            raise
        name = OPTIONS.get(error.place, error.place[2:].replace("-", "_"))
        raise BadValue(name, error.value, error.allowed) from None


def path_of(place: str, given: object) -> Path | None:
    """A path, or None where none is given."""
    if given is None:
        return None
    if not isinstance(given, str | os.PathLike) or "\0" in (path := os.fspath(given)):
        raise BadValue(place, given, "a path: a string or a pathlib.Path")
    return Path(path)


def paths(place: str, given: Sequence[object]) -> list[Path]:
    """Several paths; one alone is not a list of them."""
    if isinstance(given, str | Path) or not isinstance(given, Sequence):
        raise BadValue(place, given, "a list of paths")
    return [path for one in given if (path := path_of(f"an entry of {place}", one)) is not None]


def check_callbacks(**callbacks: object) -> None:
    """Refuse what is given in a function's place and cannot be called."""
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise BadValue(name, callback, "a function, or None")
