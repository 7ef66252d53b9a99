"""`sigmagraph models`: the weight files in the model folders, and what each holds by its header."""

from pathlib import Path
from typing import Any

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.errors import EngineError

__all__ = ["models"]

FOLDERS = ("checkpoints", "diffusion_models", "text_encoders", "vae", "vae_approx", "loras", "controlnet")


def models(as_json: AsJson = False, home: Home = None) -> None:
    """List the weight files; only headers are read."""
    from sigmagraph.engine.cli.console import columns, out, remark, write_json

    space = workspace(home)
    found: list[dict[str, Any]] = [
        {"folder": folder, "file": name, "size_bytes": path.stat().st_size, "holds": _content(path)}
        for folder in FOLDERS
        for name in space.folders.files(folder)
        for path in [space.folders.path(folder, name)]
    ]
    if as_json:
        write_json(found)
    elif found:
        table = columns("folder", "file", "size", "holds", right=("size",))
        for file in found:
            table.add_row(file["folder"], file["file"], _size(file["size_bytes"]), file["holds"])
        out().print(table)
    else:
        remark(f"no weight files below {space.folders.models}; `sigmagraph fetch` lists what can be brought")


def _content(path: Path) -> str:
    """The parts of a file in words, or what is wrong with it."""
    from sigmagraph.engine.models.files.detect import find_parts
    from sigmagraph.engine.models.files.read import open_weights

    try:
        return find_parts(open_weights(path)).listing()
    except EngineError as error:
        return str(error).removeprefix(f"{path}: ")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
