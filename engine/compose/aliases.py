"""Further names of weight files, so that a saved workflow finds its checkpoint under the name it was saved with."""

import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sigmagraph.engine.errors import BadValue, MissingFile

__all__ = ["FILE", "read_aliases"]

FILE = "aliases.toml"  # beside the model folders; read where no other file is named


def read_aliases(file: Path | None, models: Path) -> dict[str, dict[str, Path]]:
    """Folder -> name -> file. In the table, `[checkpoints]` lists `"name" = "folder/file below models"`.

    Raises `BadValue` for what is not such a table and for a file outside of `models`, `MissingFile` for one that is not
    there. Without `file` the table is `models/aliases.toml`, or empty where there is none.
    """
    place = file if file is not None else models / FILE
    if file is None and not place.is_file():
        return {}
    try:
        table = tomllib.loads(place.read_text("utf-8"))
    except OSError as error:
        raise MissingFile(place, error.strerror or "cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadValue(str(place), str(error), "a TOML file") from error
    return {folder: _names(place, folder, names, models) for folder, names in table.items()}


def _names(place: Path, folder: str, names: object, models: Path) -> dict[str, Path]:
    if not isinstance(names, Mapping) or not all(isinstance(target, str) for target in names.values()):
        raise BadValue(f"{place}: {folder}", names, '"name" = "folder/file" lines below [folder]')
    return {str(name): _target(place, f"{folder}.{name}", str(target), models) for name, target in names.items()}


def _target(place: Path, entry: str, target: str, models: Path) -> Path:
    parts = PurePosixPath(target).parts
    if not parts or ".." in parts or PurePosixPath(target).is_absolute() or "\0" in target:
        raise BadValue(f"{place}: {entry}", target, f"a file below {models}")
    path = models.joinpath(*parts)
    if not path.is_file():
        raise MissingFile(path, f"not there; {place} names it for {entry}")
    return path
