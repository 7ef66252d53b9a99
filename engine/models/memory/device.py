"""Which device computes, in which precision, and how much may be allocated on it. Nothing is looked up at import."""

from dataclasses import dataclass

import torch

from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.host import free_bytes

UNLIMITED = 2**60  # what a device without memory of its own has


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


def available_bytes(device: torch.device) -> int:
    """What may still be allocated on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return UNLIMITED if device.type == "meta" else free_bytes()


def require_room(what: str, size_bytes: int, device: torch.device) -> None:
    """Raise `OutOfMemory`, with both figures, if `size_bytes` do not fit; called before allocating."""
    room = available_bytes(device)
    if size_bytes > room:
        raise OutOfMemory(f"{what} takes {size_bytes / 1e9:.2f} GB on {device}, which has {room / 1e9:.2f} GB left")
