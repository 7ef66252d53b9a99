"""Conditionings on a device: each is copied there once, not once for every step.

A copy from ordinary host memory makes the host wait for everything the device has been told to do. What was copied
lately is kept, a few conditionings of a few megabytes each; the host's tensor is held with it, so that equal addresses
are equal tensors.
"""

from collections import OrderedDict
from threading import Lock

import torch
from torch import Tensor

MOST_KEPT = 64  # tensors: the contexts and pooled vectors of 32 conditionings, 40 MB on a device


class Moved:
    """What was moved lately, the oldest leaves first. Safe for several threads."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most, self._lock = most, Lock()
        self._kept: OrderedDict[tuple[int, torch.device], tuple[Tensor, int, Tensor]] = OrderedDict()

    def to(self, source: Tensor, device: torch.device) -> Tensor:
        """`source` itself where it is there already, else its copy, which nobody may change in place."""
        if source.device == device:
            return source
        key, version = (id(source), device), _version(source)
        with self._lock:
            known = self._kept.get(key)
            if known is not None and known[1] == version:
                self._kept.move_to_end(key)
                return known[2]
        copy = source.to(device)
        with self._lock:
            self._kept[key] = source, version, copy
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return copy

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; of what inference mode made, torch does not count it."""
    return 0 if tensor.is_inference() else tensor._version


MOVED = Moved()
"""Of this process: jobs that share a conditioning share its copy."""
