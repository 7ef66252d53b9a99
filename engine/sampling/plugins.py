"""Samplers and schedules from outside: one Python file, or packages that name themselves by an entry point.

Importing such a module runs its `@solver` and `@schedule` decorators, which is all that registering takes. Code only
ever comes from where an operator points; a graph or a weight file cannot name one.
"""

import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from engine.errors import BadValue, MissingFile

GROUP = "sigmagraph.samplers"


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
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_installed() -> list[str]:
    """Import every installed package's entry point of the group `sigmagraph.samplers`; returns their names."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    for point in found:
        point.load()
    return [point.name for point in found]
