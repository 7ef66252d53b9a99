"""What this process runs on: how much memory it may use, and versions. Standard library only, so every layer may ask.

In a container the machine's memory is not ours: what counts is the least that the machine, our control group and every
group above it leave (versions 1 and 2). Nothing is looked up at import.
"""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

__all__ = ["free_bytes", "limit_bytes", "version_of"]

ROOT = Path("/")
UNLIMITED = 2**60  # version 1 groups say 2**63 - 4096 for "no limit"
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes"
V2 = "memory.max", "memory.current"


def limit_bytes(root: Path = ROOT) -> int:
    """Host memory in all, of which this process may use some."""
    return min([_machine_bytes("MemTotal", root), *(limit for limit, _ in _groups(root))])


def free_bytes(root: Path = ROOT) -> int:
    """Host memory this process may still take."""
    left = [limit - used for limit, used in (*_groups(root), *_address_space(root))]
    return max(0, min([_machine_bytes("MemAvailable", root), *left]))


def _machine_bytes(what: str, root: Path) -> int:
    """A line of /proc/meminfo; where there is none, all we can ask for is the machine's size."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and usage, in bytes, of our group and of every group above it that has a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _along(root / "sys/fs/cgroup", path, *V2)
        elif "memory" in controllers.split(","):
            yield from _along(root / "sys/fs/cgroup/memory", path, *V1)


def _address_space(root: Path) -> Iterator[tuple[int, int]]:
    """The limit of `ulimit -v`, if there is one, and what is taken of it."""
    if resource is None:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = re.search(r"VmSize:\s+(\d+) kB", _text(root / "proc/self/status"))
    if used is not None and 0 <= limit < UNLIMITED:
        yield limit, int(used[1]) * 1024


def _along(base: Path, path: str, limit_file: str, usage_file: str) -> Iterator[tuple[int, int]]:
    """`base` and each folder down to `path`, which need not exist inside a container."""
    folder = base
    for part in ("", *Path(path.lstrip("/")).parts):
        folder = folder / part
        limit = _number(folder / limit_file)
        if limit is not None and limit < UNLIMITED:
            yield limit, (_number(folder / usage_file) or 0) - _cached_files(folder)


def _cached_files(folder: Path) -> int:
    """Bytes of a group's usage that are cached file contents (mapped weight files, say): given back on demand."""
    pairs = [line.split() for line in _text(folder / "memory.stat").splitlines()]
    return sum(int(value) for name, value in pairs if name in ("inactive_file", "active_file"))


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file or it says `max`."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


@cache
def version_of(package: str) -> str:
    """The version of an installed package, read from its metadata; empty where it is not installed."""
    if package == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
