"""Which device computes, in which precision, and how much memory this process may use.

The limit comes from the control group where there is one: in a container the machine's memory is not ours. Nothing is
looked up at import.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.errors import OutOfMemory

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


def host_limit_bytes(root: Path = Path("/")) -> int:
    """Host memory this process may use: the smallest of the control group's limits and the machine's memory."""
    return min([_machine_bytes(root), *_group_limits(root)])


def _machine_bytes(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: ask the C library
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_limits(root: Path) -> list[int]:
    """The limits of our group and of every group above it, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            limits += _along(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _along(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return limits


def _along(base: Path, path: str, name: str) -> list[int]:
    """Limits in `name` of `base` and of each folder down to `path`; in a container `path` may not exist."""
    folders = [base]
    for part in Path(path.lstrip("/")).parts:
        folders.append(folders[-1] / part)
    found: list[int] = []
    for folder in folders:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < UNLIMITED:
            found.append(int(text))
    return found


def available_bytes(device: torch.device) -> int:
    """An upper bound of what may still be allocated on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return UNLIMITED if device.type == "meta" else host_limit_bytes()


def require_room(what: str, size_bytes: int, device: torch.device) -> None:
    """Raise `OutOfMemory`, with both figures, if `size_bytes` can never fit; called before allocating."""
    room = available_bytes(device)
    if size_bytes > room:
        raise OutOfMemory(f"{what} takes {size_bytes / 1e9:.2f} GB on {device}, which has {room / 1e9:.2f} GB")
