"""Loads folders of node packs. A pack that cannot be imported is reported and skipped; the others load."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sigmagraph.engine.execution.packs.offered import install
from sigmagraph.engine.graph.comfy_class import Border, from_class
from sigmagraph.engine.graph.node import Node

SKIPPED = frozenset(("__pycache__", "example_node.py.example"))


@dataclass(frozen=True, slots=True)
class Pack:
    """One file or folder of nodes: what it brought, the digest of its code, and why it did not load if it did not."""

    name: str
    path: Path
    digest: str
    nodes: Mapping[str, Node] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        state = f"{len(self.nodes)} nodes" if self.nodes or not self.problems else "not loaded"
        return "; ".join((f"{self.name} [{self.digest}]: {state}", *self.problems))


def load_packs(
    directories: Iterable[Path], offered: Mapping[str, ModuleType], border: Border | None = None
) -> list[Pack]:
    """Every pack in the directories, by name. Code runs here: only directories the operator named may come in."""
    install(offered)
    return [_load(path, border or Border()) for directory in directories for path in _candidates(directory)]


def _candidates(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name in SKIPPED or path.name.endswith(".disabled"):
            continue
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path


def _load(path: Path, border: Border) -> Pack:
    name, digest = path.stem, code_digest(path)
    try:
        module = _import(path, f"custom_nodes.{name}")
    except Exception as error:  # noqa: BLE001  # code of others: whatever it raises concerns this pack alone
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return Pack(name, path, digest, problems=(reason,))
    classes = getattr(module, "NODE_CLASS_MAPPINGS", None)
    if not isinstance(classes, dict):
        return Pack(name, path, digest, problems=("it has no NODE_CLASS_MAPPINGS",))
    titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
    return _declared(Pack(name, path, digest), classes, titles, border)


def _declared(pack: Pack, classes: Mapping[str, Any], titles: Mapping[str, str], border: Border) -> Pack:
    nodes: dict[str, Node] = {}
    problems: list[str] = []
    for class_type, cls in classes.items():
        try:
            nodes[class_type] = from_class(
                cls,
                class_type,
                display_name=titles.get(class_type),
                module=f"custom_nodes.{pack.name}",
                revision=pack.digest,
                border=border,
            )
        except Exception as error:  # noqa: BLE001  # one class that cannot describe itself is left out
            problems.append(f"{class_type}: {type(error).__name__}: {error}")
    return Pack(pack.name, pack.path, pack.digest, nodes, tuple(problems))


def _import(path: Path, name: str) -> ModuleType:
    sys.modules.setdefault("custom_nodes", ModuleType("custom_nodes"))
    place = path if path.suffix == ".py" else path / "__init__.py"
    search = None if path.suffix == ".py" else [str(path)]
    spec = importlib.util.spec_from_file_location(name, place, submodule_search_locations=search)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def code_digest(path: Path) -> str:
    """A digest of every Python file of a pack: part of its nodes' cache keys, and what the operator is shown."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
