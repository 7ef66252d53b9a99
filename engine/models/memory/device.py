"""Which device computes, in which precision, and how much memory this process may use.

The limit comes from the control group where there is one: in a container the machine's memory is not ours. Nothing is
looked up at import.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from sigmagraph.engine.errors import OutOfMemory

UNLIMITED = 2**60  # version 1 groups say 2**63 - 4096 for "no limit"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network's weights live and the precision they are kept and multiplied in."""

    device: torch.device
    dtype: torch.dtype


def best_device() -> torch.device:
    """The first CUDA device, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def compute_dtype(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """CPU: float32. Elsewhere 16-bit files keep their dtype, everything else computes in bfloat16 (float32 stays)."""
    if device.type == "cpu" or stored == torch.float32:
        return torch.float32
    return stored if stored in (torch.float16, torch.bfloat16) else torch.bfloat16


def placement(stored: torch.dtype, device: torch.device | None = None) -> Placement:
    """The placement for weights stored as `stored`, on `device` or the best there is."""
    chosen = best_device() if device is None else device
    return Placement(chosen, compute_dtype(chosen, stored))


def host_free_bytes(root: Path = Path("/")) -> int:
    """Host memory this process may still take: the least that the machine and every control group above us leave."""
    return max(min([_machine_free(root), *_groups_free(root)]), 0)


def _machine_free(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: all we can ask for is the machine's size
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups_free(root: Path) -> list[int]:
    """What the limits of our group and of every group above it leave, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    free: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            free += _along(root / "sys/fs/cgroup", path, ("memory.max", "memory.current"))
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            free += _along(root / "sys/fs/cgroup/memory", path, files)
    return free


def _along(base: Path, path: str, files: tuple[str, str]) -> list[int]:
    """Limit less usage for `base` and each folder down to `path`, which need not exist inside a container."""
    folders = [base]
    for part in Path(path.lstrip("/")).parts:
        folders.append(folders[-1] / part)
    found: list[int] = []
    for folder in folders:
        limit = _number(folder / files[0])
        if limit is not None and limit < UNLIMITED:
            found.append(limit - (_number(folder / files[1]) or 0) + _cached_files(folder))
    return found


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file or it says `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached_files(folder: Path) -> int:
    """Bytes of a group's usage that are cached file contents (mapped weight files, say): given back on demand."""
    try:
        pairs = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for name, value in pairs if name in ("inactive_file", "active_file"))


def available_bytes(device: torch.device) -> int:
    """What may still be allocated on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return UNLIMITED if device.type == "meta" else host_free_bytes()


def require_room(what: str, size_bytes: int, device: torch.device) -> None:
    """Raise `OutOfMemory`, with both figures, if `size_bytes` do not fit; called before allocating."""
    room = available_bytes(device)
    if size_bytes > room:
        raise OutOfMemory(f"{what} takes {size_bytes / 1e9:.2f} GB on {device}, which has {room / 1e9:.2f} GB left")
