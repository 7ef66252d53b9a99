"""`sigmagraph models`: the weight files in the model folders, and what each holds by its header."""

from pathlib import Path

from sigmagraph.engine.cli.options import Home, workspace
from sigmagraph.engine.errors import EngineError

__all__ = ["models"]

FOLDERS = ("checkpoints", "diffusion_models", "text_encoders", "vae", "loras", "controlnet")


def models(home: Home = None) -> None:
    """List the weight files; only headers are read."""
    from rich.table import Table

    from sigmagraph.engine.cli.console import out, remark

    space = workspace(home)
    table = Table("folder", "file", "size", "holds", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for folder in FOLDERS:
        for name in space.folders.files(folder):
            path = space.folders.path(folder, name)
            table.add_row(folder, name, _size(path.stat().st_size), _content(path))
    if table.row_count:
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
