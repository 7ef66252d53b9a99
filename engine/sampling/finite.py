"""NaN and infinity are found without waiting for the device: each prediction's sum is copied over when it is ready."""

import math
import struct

import torch
from torch import Tensor

from engine.errors import BadPrediction

CHUNK = 64


class FiniteWatch:
    """Collects one number per prediction and raises `BadPrediction` for the first that is not finite.

    On a CPU a bad prediction is found at once; on a GPU as soon as its copy has arrived, at the latest by `finish`.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._sums = torch.zeros(0)
        self._marks: list[tuple[int, float, torch.cuda.Event | None]] = []
        self._checked = 0

    def add(self, prediction: Tensor, step: int, sigma: float) -> None:
        """Note the prediction made in this step at this sigma; look at those whose numbers have arrived."""
        place = len(self._marks) % CHUNK
        if place == 0:
            self.finish()
            self._sums = torch.zeros(CHUNK, pin_memory=self._on_gpu)
        self._sums[place].copy_(prediction.sum(dtype=torch.float32), non_blocking=True)  # one NaN makes the sum NaN
        event = None
        if self._on_gpu:
            event = torch.cuda.Event()
            event.record()
        self._marks.append((step, sigma, event))
        self._check_arrived()

    def finish(self) -> None:
        """Wait for every number still on its way, and look at it."""
        for _, _, event in self._marks[self._checked :]:
            if event is not None:
                event.synchronize()
        self._check_arrived()

    def _check_arrived(self) -> None:
        while self._checked < len(self._marks):
            step, sigma, event = self._marks[self._checked]
            if event is not None and not event.query():
                return
            if not math.isfinite(self._value(self._checked % CHUNK)):
                raise BadPrediction(f"step {step}, sigma {sigma:.6g}: the model returned NaN or infinity")
            self._checked += 1

    def _value(self, place: int) -> float:
        """The number as host memory holds it: no tensor operation, hence nothing that could wait."""
        raw = self._sums.untyped_storage()[4 * place : 4 * place + 4].tolist()
        value: float = struct.unpack("=f", bytes(raw))[0]
        return value
