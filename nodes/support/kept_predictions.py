"""Recorded predictions as bytes in a log, so that a sampler whose process was killed goes on where it was.

A solver is a deterministic function of the predictions it was sent: with the recorded ones it comes to exactly the
state it had. Writing them is held to a share of the sampling time; what does not fit waits for a later evaluation.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from sigmagraph.engine.graph.kept import Kept, Log
from sigmagraph.engine.graph.node import Hidden
from sigmagraph.engine.sampling import Recording
from sigmagraph.engine.sampling.solver import Prediction
from sigmagraph.nodes.support.provenance import environment

__all__ = ["KeptPredictions", "Unfinished", "resumed"]

Unfinished = Annotated[Kept | None, Hidden("KEPT")]
BUDGET = 0.01  # of the sampling time so far
HEAD = Struct("<I")  # length of a record's description


@dataclass(frozen=True)
class Waiting:
    """A prediction in host memory, or on its way there."""

    prediction: Prediction
    arrived: torch.cuda.Event | None = None

    def has_arrived(self) -> bool:
        """Whether it can be read; nobody waits for the device to find out."""
        return self.arrived is None or self.arrived.query()


def waiting(prediction: Prediction) -> Waiting:
    """A CUDA device is told to copy it out behind its work; from elsewhere it is copied when it is written."""
    if not prediction.denoised.is_cuda:
        return Waiting(prediction)
    parts = {
        name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
        for name, value in _parts(prediction).items()
    }
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(prediction.denoised.device))
    return Waiting(Prediction(**parts), arrived)


@dataclass
class KeptPredictions(Recording):
    """A recording whose predictions, all but the newest, are also in a log.

    The newest is held back so that a resumed run always makes at least one evaluation of its own.
    """

    asks_whose_it_is: ClassVar[bool] = False  # the log is the node's, whose key says all that it was given

    log: Log | None = None
    mark: bytes = b""
    budget: float = BUDGET
    clock: Callable[[], float] = time.perf_counter
    spent_s: float = 0.0
    _waiting: list["Waiting"] = field(default_factory=list)
    _began: float = -1.0

    def add(self, prediction: Prediction) -> None:
        super().add(prediction)
        if self.log is None:
            return
        now = self.clock()
        if self._began < 0:
            self._began = now
        self._waiting.append(waiting(prediction))
        if self.spent_s <= self.budget * (now - self._began):
            self._write()
            self.spent_s += self.clock() - now

    def restart(self) -> None:
        super().restart()
        self._waiting.clear()
        if self.log is not None:
            self.log.clear()
            self.log.append(self.mark)

    def done(self) -> None:
        """The run came to its end: nothing is kept."""
        if self.log is not None:
            self.log.discard()

    def leave(self) -> None:
        """The run was broken off: what is written stays."""
        if self.log is not None:
            self.log.close()

    def _write(self) -> None:
        assert self.log is not None
        while len(self._waiting) > 1 and self._waiting[0].has_arrived():
            self.log.append(packed(self._waiting.pop(0).prediction))


def resumed(kept: Kept | None, device: torch.device) -> KeptPredictions:
    """The recording to sample with: filled as far as an earlier process came, on the same software and device."""
    if kept is None:
        return KeptPredictions()
    log = kept.begin()
    mark = json.dumps(environment(), sort_keys=True).encode()
    records = log.records()
    if not records or records[0] != mark:
        log.clear()
        log.append(mark)
        records = [mark]
    try:
        predictions = [unpacked(record, device) for record in records[1:]]
    except (ValueError, KeyError, TypeError, AttributeError):  # written by another version of this file
        log.clear()
        log.append(mark)
        predictions = []
    return KeptPredictions(predictions, log=log, mark=mark)


def packed(prediction: Prediction) -> bytes:
    """A prediction as bytes: a description of its tensors, then their elements."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _parts(prediction).items()}
    description = {name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()}
    head = json.dumps(description).encode()
    return b"".join([HEAD.pack(len(head)), head, *(_bytes(t) for t in tensors.values())])


def unpacked(record: bytes, device: torch.device) -> Prediction:
    """The prediction again, bit for bit."""
    (length,) = HEAD.unpack_from(record)
    description = json.loads(record[HEAD.size : HEAD.size + length])
    at, parts = HEAD.size + length, {}
    for name, (kind, shape) in description.items():
        dtype: torch.dtype = getattr(torch, kind)
        end = at + math.prod(shape) * dtype.itemsize
        parts[name] = torch.frombuffer(bytearray(record[at:end]), dtype=dtype).reshape(shape).to(device)
        at = end
    return Prediction(**parts)


def _parts(prediction: Prediction) -> Mapping[str, Tensor]:
    return {name: value for name, value in prediction._asdict().items() if value is not None}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
