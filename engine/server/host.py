"""What this machine is: memory and versions, read without torch."""

import importlib.metadata
import platform
import re
from functools import cache
from pathlib import Path

__all__ = ["memory", "version_of"]

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory() -> tuple[int, int]:
    """Total and free bytes of main memory; the control group's limit where it is the lower one."""
    try:
        facts = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M))
    except OSError:  # not Linux: the page shows zero
        return 0, 0
    total, free = int(facts.get("MemTotal", 0)) * 1024, int(facts.get("MemAvailable", 0)) * 1024
    limit = _limit()
    return (min(total, limit), min(free, limit)) if limit else (total, free)


def _limit() -> int | None:
    for path in LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


@cache
def version_of(package: str) -> str:
    """The version of an installed package, read from its metadata; empty where it is not installed."""
    if package == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
