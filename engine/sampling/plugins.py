"""Samplers and schedules from outside: one Python file, or packages that name themselves by an entry point.

Importing such a module runs its `@solver` and `@schedule` decorators, which is all that registering takes. Code only
ever comes from where an operator points; a graph or a weight file cannot name one.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from sigmagraph.engine.errors import BadValue, EngineError, MissingFile
from sigmagraph.engine.sampling.schedule import SCHEDULES
from sigmagraph.engine.sampling.solver import SOLVERS
from sigmagraph.engine.sampling.versioned import VersionedName

GROUP = "sigmagraph.samplers"
_CONTENTS: dict[str, str] = {}  # what came from outside, "sampler NAME" or "schedule NAME" -> digest of its file


def load_file(path: Path) -> ModuleType:
    """Run one Python file that registers samplers or schedules; a second time it is not run again."""
    name = f"sigmagraph_plugin_{path.stem}"
    if not path.is_file():
        raise MissingFile(path, "there is no such plugin file")
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path.resolve()):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise BadValue("plugin", str(path), "a Python file, its name ending in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = _registered()
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        del sys.modules[name]
        raise BadValue("plugin", str(path), "a file that can be imported: this one ends the program") from error
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, EngineError) or not isinstance(error, Exception):
            raise
        problem = f"{_line(path, error)} raised {type(error).__name__}: {error}"
        raise BadValue("plugin", str(path), f"Python code that loads; {problem}") from error
    _note(before, module)
    return module


def _line(path: Path, error: Exception) -> str:
    """`line 3`: the last of this file that was running, or that could not be read as Python."""
    file = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}" if lines else "it"


def load_installed() -> list[str]:
    """Import every installed package's entry point of the group `sigmagraph.samplers`; returns their names."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    for point in found:
        before = _registered()
        _note(before, point.load())
    return [point.name for point in found]


def content_of(kind: str, name: str) -> str:
    """A digest of the file that a `sampler` or `schedule` came from; empty for ours, whose revision says it all.

    `name` may carry a revision. Only the file that registers counts, not what it imports.
    """
    return _CONTENTS.get(f"{kind} {VersionedName.parse(name).name}", "")


def note(entries: Iterable[str], loaded: object) -> None:
    """These, `sampler NAME` or `schedule NAME`, came from the file of `loaded`, a module or something in one."""
    module = loaded if isinstance(loaded, ModuleType) else sys.modules.get(getattr(loaded, "__module__", ""))
    file = getattr(module, "__file__", None)
    held = Path(file).read_bytes() if file and Path(file).is_file() else b""
    digest = hashlib.blake2b(held, digest_size=8).hexdigest()
    _CONTENTS.update(dict.fromkeys(entries, digest))


def forget(entries: Iterable[str]) -> None:
    """These are registered no longer."""
    for entry in entries:
        _CONTENTS.pop(entry, None)


def _registered() -> set[str]:
    return {f"sampler {name}" for name in SOLVERS} | {f"schedule {name}" for name in SCHEDULES}


def _note(before: set[str], loaded: object) -> None:
    """Whatever was registered since `before` came from there."""
    note(_registered() - before, loaded)
