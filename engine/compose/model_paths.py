"""`extra_model_paths.yaml` of an existing ComfyUI installation: where else weights lie."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sigmagraph.engine.errors import BadValue, MissingFile

__all__ = ["extra_folders"]

NO_FOLDERS = frozenset({"base_path", "is_default", "custom_nodes"})


def extra_folders(
    files: Iterable[Path], models: Path, shipped: Mapping[str, list[Path]] | None = None
) -> dict[str, list[Path]]:
    """Folder name -> directories beside ours below `models`, as `Folders.extra` takes them; `shipped` ones come last.

    Those of sections marked `is_default` come before ours, which then stands among them.

    A relative `base_path` starts at the file. Packs of nodes (`custom_nodes`) are not taken from here: code is loaded
    only from folders the operator names to this server.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        for section, values in _sections(file).items():
            is_first = values.get("is_default") is True
            for name, paths in _directories(file, section, values).items():
                known = found.setdefault(name, [])
                fresh, own = [path for path in paths if path not in known], models / name
                ours = [] if own in known else [own]
                found[name] = [*fresh, *ours, *known] if is_first else [*known, *fresh]
    for name, paths in (shipped or {}).items():
        found[name] = [*found.get(name, ()), *paths]
    return found


def _sections(file: Path) -> dict[str, Mapping[str, Any]]:
    try:
        document = yaml.safe_load(file.read_text("utf-8")) or {}
    except OSError as error:
        raise MissingFile(file, error.strerror or "cannot be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadValue(str(file), str(error), "a YAML file as ComfyUI's extra_model_paths.yaml") from error
    if not isinstance(document, dict) or not all(isinstance(each, dict | None) for each in document.values()):
        raise BadValue(str(file), type(document).__name__, "sections, each with folders")
    return {str(name): values or {} for name, values in document.items()}


def _directories(file: Path, section: str, values: Mapping[str, Any]) -> dict[str, list[Path]]:
    base = file.parent / Path(str(values.get("base_path", ""))).expanduser()
    if not base.is_dir():
        raise MissingFile(base, f"the base_path of {section} in {file} is not a folder")
    return {
        name: [base / Path(line.strip()).expanduser() for line in str(text).splitlines() if line.strip()]
        for name, text in values.items()
        if name not in NO_FOLDERS
    }
