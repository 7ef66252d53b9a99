"""Files that output nodes wrote: whether those of an earlier result are still there, and are the ones it wrote."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from sigmagraph.engine.graph.node import Services

MOST_KEYS = 20_000
Stamp = tuple[str, int, int, int]
"""A path, the file's inode, its size, and when it was changed (ns)."""


class OutputFiles:
    """Content key -> the files of the latest result, as they were when the node was done.

    A name alone is not enough: names are given again once files are deleted, and each owner has folders of its own.
    Known to this process alone, so after a restart every output is made anew. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._stamps: OrderedDict[str, frozenset[Stamp]] = OrderedDict()
        self._lock = Lock()

    def note(self, key: str, ui: Mapping[str, Any] | None, services: Services | None) -> None:
        """A node with this key has just shown this."""
        stamps = _stamps(ui, services)
        with self._lock:
            self._stamps.pop(key, None)
            if stamps is not None:
                self._stamps[key] = stamps
            if len(self._stamps) > MOST_KEYS:
                self._stamps.popitem(last=False)

    def are_there(self, key: str, ui: Mapping[str, Any] | None, services: Services | None) -> bool:
        """Whether what the node showed can be shown again: every file is the one it wrote."""
        with self._lock:
            known = self._stamps.get(key)
        return known is not None and known == _stamps(ui, services)


def _stamps(ui: Mapping[str, Any] | None, services: Services | None) -> frozenset[Stamp] | None:
    """The files that a user-interface record names; None where one of them is missing."""
    try:
        return frozenset(_stamp(path) for path in _paths(ui, services))
    except (OSError, ValueError):  # gone, or no name a file can have
        return None


def _stamp(path: Path) -> Stamp:
    facts = path.stat()
    return str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns


def _paths(ui: Mapping[str, Any] | None, services: Services | None) -> Iterator[Path]:
    for shown in (ui or {}).values():
        for entry in shown if isinstance(shown, list | tuple) else ():
            if isinstance(entry, Mapping) and isinstance(entry.get("filename"), str):
                yield _folder(entry.get("type"), services) / str(entry.get("subfolder") or "") / entry["filename"]


def _folder(kind: Any, services: Services | None) -> Path:
    if services is None or kind not in ("output", "temp"):
        raise ValueError(kind)
    return services.output_dir if kind == "output" else services.temp_dir
