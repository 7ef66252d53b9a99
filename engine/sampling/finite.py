"""NaN and infinity are found without waiting for the device: each prediction's sum is looked at when it has arrived."""

import ctypes
import math
import operator
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadPrediction


@dataclass(frozen=True, slots=True)
class _Mark:
    """One prediction's sum, in host memory or on its way there, and where in the run it was made."""

    total: Tensor
    arrived: torch.cuda.Event | None
    step: int
    sigma: float


class FiniteWatch:
    """Takes one number per prediction and raises `BadPrediction` for the first that is not finite.

    On a CPU a bad prediction is found at once; on a GPU as soon as its copy has arrived, at the latest by `finish`.
    """

    def __init__(self) -> None:
        self._marks: deque[_Mark] = deque()

    def add(self, estimates: Sequence[Tensor], step: int, sigma: float) -> None:
        """Note the estimates made in this step at this sigma; look at those whose numbers have arrived.

        However many there are, one number travels.
        """
        sums = (estimate.sum(dtype=torch.float32) for estimate in estimates)
        total, arrived = reduce(operator.add, sums), None  # one NaN or infinity makes the sum one, or NaN
        if total.is_cuda:
            total = torch.empty((), dtype=torch.float32, pin_memory=True).copy_(total, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        elif total.device.type != "cpu":
            total = total.cpu()  # devices without events of this kind: wait for the number
        self._marks.append(_Mark(total, arrived, step, sigma))
        while self._marks and ((event := self._marks[0].arrived) is None or event.query()):
            self._check(self._marks.popleft())

    def finish(self) -> None:
        """Wait for every number still on its way, and look at it."""
        for mark in self._marks:
            if mark.arrived is not None:
                mark.arrived.synchronize()
            self._check(mark)
        self._marks.clear()

    def _check(self, mark: _Mark) -> None:
        # the number as host memory holds it: no tensor operation, hence nothing that could wait
        value = ctypes.c_float.from_address(mark.total.data_ptr()).value
        if not math.isfinite(value):
            raise BadPrediction(f"step {mark.step}, sigma {mark.sigma:.6g}: the model returned NaN or infinity")
