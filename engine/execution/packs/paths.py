"""Offered as `folder_paths`: the functions node packs ask for files, answered by the services of this engine."""

from collections.abc import Callable
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.execution.folders import PLACES, Folders, inside
from sigmagraph.engine.model_folders import MODEL_FOLDERS
from sigmagraph.engine.writing import filled_prefix


def folder_paths(services: Folders) -> dict[str, Any]:
    """The names of the module."""
    return {**_directories(services), **_files(services), **_saving(services)}


def _directories(services: Folders) -> dict[str, Any]:
    places = {"input": services.input_dir, "output": services.output_dir, "temp": services.temp_dir}

    def get_folder_paths(folder_name: str) -> list[str]:
        """Every directory of a model folder."""
        return [str(path) for path in services.directories(folder_name)]

    def get_directory_by_type(type_name: str) -> str | None:
        """The input, output or temporary directory."""
        return str(places[type_name]) if type_name in places else None

    return {
        "models_dir": str(services.models),
        "base_path": str(services.models.parent),
        "get_input_directory": lambda: str(services.input_dir),
        "get_output_directory": lambda: str(services.output_dir),
        "get_temp_directory": lambda: str(services.temp_dir),
        "get_directory_by_type": get_directory_by_type,
        "get_folder_paths": get_folder_paths,
        "add_model_folder_path": _adder(services),
        "folder_names_and_paths": FolderTable(services),
        "supported_pt_extensions": {".safetensors"},
        "input_directory": str(services.input_dir),
        "output_directory": str(services.output_dir),
        "temp_directory": str(services.temp_dir),
        "user_directory": str(services.models.parent / "user"),
        "get_user_directory": lambda: str(services.models.parent / "user"),
        "set_output_directory": _unchangeable("output"),
        "set_input_directory": _unchangeable("input"),
        "set_temp_directory": _unchangeable("temporary"),
    }


class FolderTable(dict[str, tuple[list[str], set[str]]]):
    """Model folder -> its directories and the endings of its files; what a pack puts in is searched from then on."""

    def __init__(self, services: Folders) -> None:
        super().__init__(
            {
                name: ([str(path) for path in services.directories(name)], ENDINGS)
                for name in ("clip", "unet", *MODEL_FOLDERS)
            }
        )
        self._services = services

    def __setitem__(self, name: str, value: tuple[list[str], set[str]]) -> None:
        super().__setitem__(name, value)
        self._services.extra = {**self._services.extra, name: [Path(path) for path in value[0]]}


def _unchangeable(which: str) -> Callable[[str], None]:
    """Packs may not move the folders of a running engine: jobs of others write into them."""

    def set_directory(path: str) -> None:
        raise PermissionError(f"a node pack wants the {which} folder to be {path}; only the operator sets it")

    return set_directory


def _adder(services: Folders) -> Callable[..., None]:
    def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
        """Let a model folder have one more directory."""
        fresh, own = Path(full_folder_path), inside(services.models, folder_name)
        known = list(services.extra.get(folder_name, ()))
        ours = [] if own in known else [own]
        known = [fresh, *ours, *known] if is_default else [*known, fresh]
        services.extra = {**services.extra, folder_name: known}

    return add_model_folder_path


def _files(services: Folders) -> dict[str, Any]:
    def get_full_path(folder_name: str, filename: str) -> str | None:
        """The path of a model file, or None."""
        try:
            return str(services.path(folder_name, filename))
        except EngineError:
            return None

    def get_full_path_or_raise(folder_name: str, filename: str) -> str:
        """The path of a model file; raises for what is not there."""
        return str(services.path(folder_name, filename))

    def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
        """The path of `picture.png [output]`, whether or not it exists; a name that leads outside is refused."""
        folder = next((place for place in PLACES if name.endswith(f" [{place}]")), "input")
        bare = name.removesuffix(f" [{folder}]")
        base = Path(default_dir) if default_dir is not None and bare == name else services.directories(folder)[0]
        return str(inside(base, bare))

    def exists_annotated_filepath(name: str) -> bool:
        """Whether that file is there."""
        return Path(get_annotated_filepath(name)).is_file()

    return {
        "get_filename_list": services.files,
        "annotated_filepath": annotated_filepath,
        "recursive_search": recursive_search,
        "get_input_subfolders": lambda: sorted(recursive_search(str(services.input_dir))[1]),
        "get_full_path": get_full_path,
        "get_full_path_or_raise": get_full_path_or_raise,
        "get_annotated_filepath": get_annotated_filepath,
        "exists_annotated_filepath": exists_annotated_filepath,
        "filter_files_content_types": _only_types,
    }


ENDINGS = {".safetensors"}


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """`picture.png [output]` as the name and the folder, which a name without one leaves open."""
    folder = next((place for place in PLACES if name.endswith(f" [{place}]")), None)
    return (name, None) if folder is None else (name.removesuffix(f" [{folder}]"), folder)


def recursive_search(directory: str, excluded_dir_names: list[str] | None = None) -> tuple[list[str], dict[str, float]]:
    """The files below a directory, relative to it, and its folders with the times they were changed."""
    root, excluded = Path(directory), set(excluded_dir_names or ())
    files: list[str] = []
    folders: dict[str, float] = {}
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        relative = path.relative_to(root)
        if excluded.isdisjoint(relative.parts):
            if path.is_dir():
                folders[str(relative)] = path.stat().st_mtime
            else:
                files.append(str(relative))
    return files, folders


TYPES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".opus"),
    "video": (".mp4", ".webm", ".mov", ".mkv", ".m4v"),
}


def _only_types(files: list[str], content_types: list[str]) -> list[str]:
    """The files of these kinds, told by their ending."""
    endings = tuple(ending for kind in content_types for ending in TYPES.get(kind, ()))
    return [name for name in files if name.lower().endswith(endings)]


def _saving(services: Folders) -> dict[str, Any]:
    def get_save_image_path(
        filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
    ) -> tuple[str, str, int, str, str]:
        """Folder, file name, next counter, subfolder and prefix for saving pictures `name_00001_`."""
        prefix = filled_prefix(filename_prefix, image_width, image_height, datetime.now())
        folder, name = Path(output_dir), ""
        if prefix:  # without any, files are named by their counters alone
            place = inside(folder, prefix)
            folder, name = (place, "") if prefix.endswith(("/", "\\")) else (place.parent, place.name)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = (path.name[len(name) + 1 :].split("_")[0] for path in folder.glob(f"{escape(name)}_*"))
        counter = max((int(number) for number in numbers if number.isdigit()), default=0) + 1
        subfolder = folder.relative_to(output_dir).as_posix()
        return str(folder), name, counter, "" if subfolder == "." else subfolder, prefix

    return {"get_save_image_path": get_save_image_path}
