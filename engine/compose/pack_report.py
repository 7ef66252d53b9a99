"""What a node pack is, told without running it: what it imports that reaches further than tensors, and its licence.

The look is at the source's imports, so it sees what is written down and not what is hidden: a hint for the operator who
decides whether to load a pack, not a judgement.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sigmagraph.engine.execution.packs.loader import python_files

__all__ = ["Reach", "reach_of"]

REACHES: Mapping[str, frozenset[str]] = {
    "network": frozenset(
        (
            *("aiohttp", "ftplib", "gdown", "git", "http", "httpx", "huggingface_hub", "openai", "requests", "smtplib"),
            *("socket", "urllib", "urllib3", "websocket", "websockets", "yt_dlp"),
        )
    ),
    "processes": frozenset(("ctypes", "multiprocessing", "pip", "psutil", "pynvml", "signal", "subprocess")),
    "disk": frozenset(("glob", "io", "os", "pathlib", "shutil", "sqlite3", "tempfile", "zipfile")),
    "code": frozenset(("cloudpickle", "dill", "imp", "importlib", "pickle", "runpy")),
}
CALLS: Mapping[str, str] = {"eval": "code", "exec": "code", "compile": "code", "__import__": "code", "open": "disk"}
HOSTS = frozenset(("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"))
LICENCES = (
    ("AGPL-3.0", r"GNU AFFERO GENERAL PUBLIC LICENSE"),
    ("LGPL", r"GNU LESSER GENERAL PUBLIC LICENSE"),
    ("GPL-3.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 3"),
    ("GPL-2.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 2"),
    ("Apache-2.0", r"Apache License\s+Version 2\.0"),
    ("MPL-2.0", r"Mozilla Public License Version 2\.0"),
    ("BSD", r"Redistribution and use in source and binary forms"),
    ("MIT", r"Permission is hereby granted, free of charge"),
    ("Unlicense", r"free and unencumbered software"),
)


@dataclass(frozen=True)
class Reach:
    """What a pack's source asks for: kind -> modules and calls, the names of ComfyUI it imports, its licence."""

    reaches: Mapping[str, tuple[str, ...]]
    imports: tuple[str, ...]
    licence: str
    unreadable: tuple[str, ...] = ()


def reach_of(path: Path) -> Reach:
    """Read every Python file of a pack; one that is not Python is named."""
    kinds: dict[str, set[str]] = {}
    imports: set[str] = set()
    unreadable: list[str] = []
    for file in python_files(path):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            unreadable.append(f"{file.relative_to(path.parent)}: {error}")
            continue
        for kind, name in _asks(tree):
            (imports if kind == "host" else kinds.setdefault(kind, set())).add(name)
    found = {kind: tuple(sorted(kinds[kind])) for kind in REACHES if kind in kinds}
    return Reach(found, tuple(sorted(imports)), _licence(path), tuple(unreadable))


def _asks(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield CALLS[node.func.id], f"{node.func.id}()"
        for name in names:
            root = name.partition(".")[0]
            if root in HOSTS:
                yield "host", name
            for kind, modules in REACHES.items():
                if root in modules:
                    yield kind, root


def _licence(path: Path) -> str:
    """By the text of its licence file; what it is called where the text is not known."""
    folder = path if path.is_dir() else path.parent
    for file in sorted(folder.glob("*")) if path.is_dir() else ():
        if file.is_file() and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            text = file.read_text(encoding="utf-8", errors="replace")
            return next((name for name, pattern in LICENCES if re.search(pattern, text)), f"see {file.name}")
    return "none found"
