"""`--plugin FILE`: samplers and schedules of the user's own, there before a command reads its workflow."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from sigmagraph.engine.errors import BadValue, EngineError

__all__ = ["load_plugins", "load_what_loads"]

Part = tuple[str, str, Callable[[], object]]


def load_plugins(files: Sequence[Path]) -> None:
    """Register what installed packages offer, then what the files hold; the first that does not load is the error."""
    for part in _parts(files):
        _load(*part)


def load_what_loads(files: Sequence[Path], report: Callable[[EngineError], None]) -> None:
    """The same, but each that does not load is reported and left out."""
    for part in _parts(files):
        try:
            _load(*part)
        except EngineError as error:
            report(error)


def _parts(files: Sequence[Path]) -> Iterator[Part]:
    """What there is to load: where it was named, its name, and how."""
    from sigmagraph.engine.sampling.plugins import GROUP, load_file, load_installed

    yield "installed packages", GROUP, load_installed
    for file in files:
        yield "--plugin", str(file), partial(load_file, file)


def _load(place: str, name: str, load: Callable[[], object]) -> None:
    try:
        load()
    except EngineError:
        raise
    except Exception as error:  # code of the user's own: whatever it raises is their message
        problem = f"{type(error).__name__}: {error}"
        raise BadValue(place, name, f"Python code that loads; it raised {problem}") from error
