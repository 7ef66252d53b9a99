"""Loads packs of nodes, from folders and from installed distributions. One that does not load is reported and skipped.

A pack brings classes of ComfyUI's convention or of its newer schema (`NODE_CLASS_MAPPINGS`, `comfy_entrypoint`), typed
functions under `@node` (in `NODES`, or in the same mapping), or all of them.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from sigmagraph.engine.execution.packs.entrypoint import IMPORT_S, Ended, extension_classes, within
from sigmagraph.engine.execution.packs.node_replacement import registered
from sigmagraph.engine.execution.packs.shims import install
from sigmagraph.engine.graph.comfy.comfy_class import Border, from_class
from sigmagraph.engine.graph.node import Node
from sigmagraph.engine.graph.replacements import Replacement
from sigmagraph.engine.graph.schema.node import from_schema, is_schema_class
from sigmagraph.engine.graph.source import PACKS, source_of
from sigmagraph.engine.units import counted

INSTALLED = "sigmagraph.nodes"  # the entry-point group: a module, or its nodes
ROOTS = frozenset(
    ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server", "torchvision")
)
LONGEST_NAME = 1000  # characters of a class's name
SKIPPED = frozenset(("__pycache__", "example_node.py.example"))


@dataclass(frozen=True, slots=True)
class Pack:
    """One file or folder of nodes: what it brought, the digest of its code, and why it did not load if it did not.

    `replacements` name classes of old files that nodes of this pack, or of another, stand in for. `web` is its folder
    of scripts for the editor, where it has one within its own folder.
    """

    name: str
    path: Path
    digest: str
    nodes: Mapping[str, Node] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    web: Path | None = None

    def __str__(self) -> str:
        state = counted(len(self.nodes), "node") if self.nodes or not self.problems else "not loaded"
        return "; ".join((f"{self.name} [{self.digest}]: {state}", *self.problems))


def load_packs(
    directories: Iterable[Path], shims: Mapping[str, ModuleType], border: Border | None = None
) -> list[Pack]:
    """Every pack in the directories, by name. Code runs here: only directories the operator named may come in."""
    install(shims)
    paths = [path for directory in directories for path in candidates(directory)]
    return [_put_back(_load(path, border or Border()), shims) for path in paths]


def _put_back(pack: Pack, shims: Mapping[str, ModuleType]) -> Pack:
    """A pack may write into the modules it is given; others in their place would be the next pack's trouble."""
    gone = sorted(name for name, module in shims.items() if sys.modules.get(name) is not module)
    sys.modules.update((name, shims[name]) for name in gone)
    told = (f"it replaced {', '.join(gone)} for others; put back",) if gone else ()
    return replace(pack, problems=(*pack.problems, *told))


def load_installed(shims: Mapping[str, ModuleType], border: Border | None = None) -> list[Pack]:
    """What installed distributions offer under `sigmagraph.nodes`, by name."""
    points = sorted(entry_points(group=INSTALLED), key=lambda point: point.name)
    if points:
        install(shims)
    return [_load_point(point, border or Border()) for point in points]


def candidates(directory: Path) -> Iterator[Path]:
    """The files and folders of a directory that are packs, by name."""
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name in SKIPPED or path.name.endswith(".disabled"):
            continue
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path


def _load(path: Path, border: Border) -> Pack:
    pack = Pack(path.stem, path, "")
    try:
        pack = replace(pack, digest=code_digest(path))
        return _asked(pack, lambda: _import(path, PACKS + pack.name), border)
    except Exception as error:  # noqa: BLE001  # code of others: whatever it raises concerns it alone
        return _broken(pack, error)


def _asked(pack: Pack, bring: Callable[[], Any], border: Border) -> Pack:
    """The pack with its nodes. Importing it has a deadline, and asking its classes for their inputs another."""
    with redirect_stdout(sys.stderr):  # what packs print must not get into a command's own output
        brought = within(IMPORT_S, bring, f"importing {pack.name}")
        return within(IMPORT_S, lambda: _declared(pack, brought, border), f"asking the classes of {pack.name}")


def _load_point(point: EntryPoint, border: Border) -> Pack:
    """One entry point: a module with the names of a pack, a node, several, or a mapping of them."""
    pack = Pack(point.name, Path(point.module), "")
    try:
        brought = within(IMPORT_S, point.load, f"importing {pack.name}")
        file = Path(importlib.import_module(point.module).__file__ or "")
        path = file.parent if file.name == "__init__.py" else file
        return _asked(replace(pack, path=path, digest=code_digest(path)), lambda: brought, border)
    except Exception as error:  # noqa: BLE001  # code of others
        return _broken(pack, error)


def _broken(pack: Pack, error: BaseException) -> Pack:
    registered()  # what it said before it broke counts for nobody
    if isinstance(error, Ended) and error.__cause__ is not None:
        error = error.__cause__
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    asked = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    hint = "; docs/packs.md lists the names packs can use" if asked in ROOTS else ""
    return replace(pack, problems=(reason + hint,))


def with_replacements(nodes: Mapping[str, Node], packs: Iterable[Pack]) -> dict[str, Node]:
    """The nodes, those that stand in for others with what they stand in for."""
    found = dict(nodes)
    for replacement in (offer for pack in packs for offer in pack.replacements):
        if (node := found.get(replacement.new)) is not None:
            found[replacement.new] = replace(node, replaces=(*node.replaces, replacement))
    return found


def _declared(pack: Pack, brought: Any, border: Border) -> Pack:
    """The pack with its nodes; a class that cannot describe itself is left out and told."""
    found = _listed(brought)
    if found is None:
        return replace(pack, problems=("it has none of NODE_CLASS_MAPPINGS, NODES and comfy_entrypoint",))
    titles = getattr(brought, "NODE_DISPLAY_NAME_MAPPINGS", None)
    titles = titles if isinstance(titles, Mapping) else {}
    nodes: dict[str, Node] = {}
    problems: list[str] = []
    for name, declared in found.items():
        module, title = PACKS + pack.name, titles.get(name)
        try:
            _check_name(name)
            if isinstance(declared, Node):
                nodes[name] = _typed(declared, name, title, module, pack.digest)
            elif is_schema_class(declared):
                nodes[name] = from_schema(declared, name, module=module, revision=pack.digest, border=border)
            else:
                nodes[name] = from_class(
                    declared, name, display_name=title, module=module, revision=pack.digest, border=border
                )
        except (Exception, SystemExit) as error:  # noqa: BLE001  # it concerns this one alone
            shown = str(name)[:60].encode("utf-8", "backslashreplace").decode()
            problems.append(f"{shown}: {type(error).__name__}: {error}")
    web = _scripts(pack, getattr(brought, "WEB_DIRECTORY", None))
    return replace(pack, nodes=nodes, problems=tuple(problems), replacements=registered(), web=web)


def _check_name(name: Any) -> None:
    """A class's name stands in files and addresses: a string of characters that can be written."""
    if not isinstance(name, str) or not name or len(name) > LONGEST_NAME:
        raise TypeError(f"a node's name is {str(name)[:40]!r}; expected a string of 1 to {LONGEST_NAME} characters")
    name.encode()


def _scripts(pack: Pack, directory: Any) -> Path | None:
    """The folder that a pack names for its scripts; one that leads out of the pack is none."""
    if not isinstance(directory, str) or not pack.path.is_dir():
        return None
    place, root = (pack.path / directory).resolve(), pack.path.resolve()
    return place if place.is_dir() and place.is_relative_to(root) else None


def _listed(brought: Any) -> dict[str, Any] | None:
    """Names with their classes or nodes, from a module or from what an entry point names; None where there are none."""
    if isinstance(brought, Node):
        return {brought.class_type: brought}
    if isinstance(brought, Mapping):
        return dict(brought)
    if not isinstance(brought, ModuleType):
        return {node.class_type: node for node in brought} if isinstance(brought, list | tuple) else None
    typed, classes = getattr(brought, "NODES", None), getattr(brought, "NODE_CLASS_MAPPINGS", None)
    found = {node.class_type: node for node in typed} if isinstance(typed, list | tuple) else None
    entry = getattr(brought, "comfy_entrypoint", None)
    if callable(entry):
        given = within(IMPORT_S, lambda: extension_classes(entry), f"listing the classes of {brought.__name__}")
        found = {**(found or {}), **given}
    if isinstance(classes, Mapping):
        return {**(found or {}), **classes}
    return found


def _typed(node: Node, name: str, title: str | None, module: str, digest: str) -> Node:
    """A typed node as part of a pack: its code counts in the keys of its results, like a class's."""
    shown, source = title or node.display_name, source_of(node.function, module)
    revision = f"{node.revision} {digest}"
    return replace(node, class_type=name, display_name=shown, module=module, source=source, revision=revision)


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
    digest = hashlib.blake2b(digest_size=8)
    for file in python_files(path):
        digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def python_files(path: Path) -> list[Path]:
    """The Python files of a pack, by name: what can be read, so no folders, pipes or links that lead nowhere."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [file for file in files if file.is_file() and os.access(file, os.R_OK)]
