"""`extra_model_paths.yaml` of an existing ComfyUI installation: where else weights lie."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from sigmagraph.engine.errors import BadValue, MissingFile

__all__ = ["extra_folders", "extra_from_environment"]

COMFYUI_TOKENIZERS = ("comfy", "comfy/text_encoders")
FILE = "extra_model_paths.yaml"
NO_FOLDERS = frozenset({"base_path", "is_default", "custom_nodes"})


def extra_folders(
    files: Iterable[Path],
    models: Path,
    shipped: Mapping[str, list[Path]] | None = None,
    comfyui: Path | None = None,
) -> dict[str, list[Path]]:
    """Folder name -> directories beside ours below `models`, as `Folders.extra` takes them; `shipped` ones come last.

    Those of sections marked `is_default` come before ours, which then stands among them.

    A relative `base_path` starts at the file. Packs of nodes (`custom_nodes`) are not taken from here: code is loaded
    only from folders the operator names to this server.
    """
    found: dict[str, list[Path]] = {}
    own_file = [] if comfyui is None else [comfyui / FILE]
    for file in (*files, *(path for path in own_file if path.is_file())):
        for section, values in _sections(file).items():
            is_first = values.get("is_default") is True
            for name, paths in _directories(file, section, values).items():
                known = found.setdefault(name, [])
                fresh, own = [path for path in paths if path not in known], models / name
                ours = [] if own in known else [own]
                found[name] = [*fresh, *ours, *known] if is_first else [*known, *fresh]
    for name, paths in (_installed(comfyui) if comfyui is not None else {}).items():
        found[name] = [*found.get(name, ()), *paths]
    for name, paths in (shipped or {}).items():
        found[name] = [*found.get(name, ()), *paths]
    return found


def extra_from_environment(
    environment: Mapping[str, str], models: Path, shipped: Mapping[str, list[Path]]
) -> dict[str, list[Path]]:
    """What SIGMAGRAPH_EXTRA_MODEL_PATHS (with `:` between) and SIGMAGRAPH_COMFYUI_DIR name."""
    files = [Path(part) for part in environment.get("SIGMAGRAPH_EXTRA_MODEL_PATHS", "").split(":") if part]
    comfyui = environment.get("SIGMAGRAPH_COMFYUI_DIR")
    return extra_folders(files, models, shipped, Path(comfyui) if comfyui else None)


def _installed(comfyui: Path) -> dict[str, list[Path]]:
    """The model folders of a ComfyUI checkout, and the tokenizers among its code."""
    if not (comfyui / "models").is_dir():
        raise MissingFile(comfyui / "models", "there is no such folder: not a ComfyUI installation")
    found = {folder.name: [folder] for folder in sorted((comfyui / "models").iterdir()) if folder.is_dir()}
    found.setdefault("tokenizers", []).extend(comfyui / place for place in COMFYUI_TOKENIZERS)
    return found


def _sections(file: Path) -> dict[str, Mapping[str, Any]]:
    try:
        document = yaml.safe_load(file.read_text("utf-8")) or {}
    except OSError as error:
        raise MissingFile(file, error.strerror or "cannot be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadValue(str(file), str(error), "a YAML file as ComfyUI's extra_model_paths.yaml") from error
    if not isinstance(document, dict) or not all(isinstance(section, dict | None) for section in document.values()):
        raise BadValue(str(file), type(document).__name__, "sections, each with folders")
    return {str(name): values or {} for name, values in document.items()}


def _directories(file: Path, section: str, values: Mapping[str, Any]) -> dict[str, list[Path]]:
    base = file.parent / Path(str(values.get("base_path", ""))).expanduser()
    if not base.is_dir():
        raise MissingFile(base, f"the base_path of {section} in {file} is not a folder")
    listed = {
        name: [base / Path(line.strip()).expanduser() for line in str(text).splitlines() if line.strip()]
        for name, text in values.items()
        if name not in NO_FOLDERS
    }
    beside = [base / place for place in COMFYUI_TOKENIZERS if (base / place).is_dir()]
    return {**listed, "tokenizers": [*listed.get("tokenizers", []), *beside]} if beside else listed
