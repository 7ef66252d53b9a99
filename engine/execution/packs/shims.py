"""The modules node packs import, as thin as possible. Making them starts nothing and imports no tensor library.

What needs models or samplers (`comfy.samplers`, `comfy.sd`, `comfy.model_management`'s device) is handed in by whoever
puts the engine together.
"""

import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from sigmagraph.engine.errors import Cancelled
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import graph_utils, node_typing, progress
from sigmagraph.engine.execution.packs.paths import folder_paths
from sigmagraph.engine.graph.results import Blocker
from sigmagraph.engine.graph.schema import io, ui

Names = Mapping[str, Any]


def shim_modules(services: Folders, further: Mapping[str, Names] | None = None) -> dict[str, ModuleType]:
    """Module name -> module. `further` adds names, `{"comfy.samplers": {"KSampler": ...}}`."""
    names: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.utils": {"ProgressBar": progress.ProgressBar},
        "comfy.model_management": {
            "InterruptProcessingException": Cancelled,
            "throw_exception_if_processing_interrupted": progress.throw_exception_if_processing_interrupted,
            "processing_interrupted": progress.processing_interrupted,
        },
        "comfy.comfy_types": _public(node_typing),
        "comfy.comfy_types.node_typing": _public(node_typing),
        "comfy_execution": {},
        "comfy_execution.graph": {"ExecutionBlocker": Blocker},
        "comfy_execution.graph_utils": _public(graph_utils),
        "comfy_api": {},
        "comfy_api.v0_0_2": {**_public(progress), "ComfyExtension": io.ComfyExtension},
        "comfy_api.latest": {**_public(progress), "ComfyExtension": io.ComfyExtension, "ui": ui},
        "comfy_api.latest.io": _all(io),
        "comfy_api.latest._io": _all(io),
        "comfy_api.latest.ui": _all(ui),
        "comfy_api.v0_0_2.io": _all(io),
        "folder_paths": folder_paths(services),
    }
    for module, more in (further or {}).items():
        names.setdefault(module, {}).update(more)
    home = services.models.parent
    return _linked({name: _module(name, values, home) for name, values in _with_parents(names).items()})


def install(modules: Mapping[str, ModuleType]) -> Callable[[], None]:
    """Make the modules importable under their names; returns what takes them away again.

    Each is a module of its own. One of the same name that was loaded before is set aside, not written into: whoever
    holds it keeps it as it is, and it is back once ours are taken away.
    """
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    reloads = Reloads(modules)
    sys.meta_path.append(reloads)

    def take_away() -> None:
        sys.meta_path.remove(reloads)
        for name, module in modules.items():
            if sys.modules.get(name) is module:
                earlier = before[name]
                if earlier is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = earlier

    return take_away


class Reloads(MetaPathFinder, Loader):
    """Lets packs call `importlib.reload` on our modules, which leaves them as they are, with what packs put in."""

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Where a module of ours comes from, for whoever has it already."""
        is_ours = target is not None and self.modules.get(fullname) is target
        return ModuleSpec(fullname, self, is_package=True) if is_ours else None

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it is filled already."""


def _public(module: ModuleType) -> dict[str, Any]:
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in own.items() if getattr(value, "__module__", None) == module.__name__}


def _all(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def _with_parents(names: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    parents = {".".join(parts[:at]) for name in names if (parts := name.split(".")) for at in range(1, len(parts))}
    return {**{parent: {} for parent in parents}, **names}


def _module(name: str, values: Names, home: Path) -> ModuleType:
    """The module, as if it lay in the home: packs look for ComfyUI's folders, and make some, beside its files."""
    module = ModuleType(name, "Names that node packs import; provided by this engine.")
    module.__path__ = []  # importable as a package
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__file__ = str(home.joinpath(*name.split(".")).with_suffix(".py"))
    vars(module).update(values)
    return module


def _linked(modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """Each module as an attribute of its parent, and of a second place where packs look for it."""
    if "comfy.samplers" in modules and "comfy.k_diffusion.sampling" in modules:
        vars(modules["comfy.samplers"])["k_diffusion_sampling"] = modules["comfy.k_diffusion.sampling"]
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules
