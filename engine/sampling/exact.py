"""float64 where a device has it, else on the CPU: Apple's devices have none, Intel's consumer cards none."""

import torch
from torch import Tensor

HAVE_FLOAT64 = frozenset(("cpu", "cuda", "meta"))


def exact_device(device: torch.device) -> torch.device:
    """Where float64 that belongs to `device` is computed: there, or on the CPU."""
    return device if device.type in HAVE_FLOAT64 else torch.device("cpu")


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, on a device that computes with it."""
    return tensor.to(exact_device(tensor.device)).double()
