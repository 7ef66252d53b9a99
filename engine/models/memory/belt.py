"""Blocks of a network that come to a device one after another: two buffers there, the next filled while one computes.

A thread copies a block's stored bytes from the mapped file into pinned memory; a stream of its own takes them to the
device, where they are expanded. Events order the two: a buffer is overwritten when its block has computed, and a block
computes when its buffer is full. Without CUDA the thread fills the buffers itself, and the order is the same.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sigmagraph.engine.models.files.read import StoredTensor
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.resident import absent

ALIGNED = 256  # bytes, for every tensor in a buffer
Places = Mapping[tuple[nn.Module, str], StoredTensor]


class Belt:
    """Brings blocks in and out of a network by hooks. `blocks`: modules, and what each of their tensors is made of."""

    def __init__(self, blocks: Sequence[tuple[nn.Module, Places]], placement: Placement) -> None:
        self._places = [places for _, places in blocks]
        self._placement, self._is_cuda = placement, placement.device.type == "cuda"
        size = max(sum(_room(piece) for stored in places.values() for piece in stored.pieces()) for _, places in blocks)
        self.buffers = [torch.empty(size, dtype=torch.uint8, device=placement.device) for _ in range(2)]
        self._turn = 0
        self._coming: tuple[int, int, Future[None]] | None = None  # block, buffer, its filling
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="belt")
        if self._is_cuda:
            self._pinned = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            self._stream = torch.cuda.Stream(placement.device)
            self._full, self._sent, self._free = ([torch.cuda.Event() for _ in range(2)] for _ in range(3))
            for event in self._free:
                event.record(torch.cuda.current_stream(placement.device))
        for at, (module, places) in enumerate(blocks):
            gone = {place: absent(stored, placement) for place, stored in places.items()}
            module.register_forward_pre_hook(lambda _, __, at=at: self._bring(at))
            module.register_forward_hook(lambda *_, left=gone: self._take(left), always_call=True)

    def _bring(self, at: int) -> None:
        """Block `at` is about to compute: its tensors are there when it does, and the next block is on its way."""
        if self._coming is None or self._coming[0] != at:
            self._coming = self._fetch(at)
        _, self._at, filled = self._coming
        filled.result()
        if self._is_cuda:
            torch.cuda.current_stream(self._placement.device).wait_event(self._full[self._at])
        _assign(self._expanded(at, self.buffers[self._at]))
        self._coming = self._fetch((at + 1) % len(self._places))

    def _take(self, gone: Mapping[tuple[nn.Module, str], nn.Parameter]) -> None:
        if self._is_cuda:
            self._free[self._at].record(torch.cuda.current_stream(self._placement.device))
        _assign(gone)

    def _fetch(self, at: int) -> tuple[int, int, "Future[None]"]:
        self._turn += 1
        buffer = self._turn % 2
        return at, buffer, self._worker.submit(self._fill, at, buffer)

    @torch.inference_mode()
    def _fill(self, at: int, buffer: int) -> None:
        """On the worker's thread."""
        if not self._is_cuda:
            self._gather(at, self.buffers[buffer])
            return
        self._sent[buffer].synchronize()
        size = self._gather(at, self._pinned[buffer])
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._free[buffer])
            self.buffers[buffer][:size].copy_(self._pinned[buffer][:size], non_blocking=True)
            self._full[buffer].record(self._stream)
            self._sent[buffer].record(self._stream)
            self.buffers[buffer].record_stream(self._stream)  # a belt that goes leaves its last copy to end in peace

    def _gather(self, at: int, into: Tensor) -> int:
        """The stored bytes of a block, one tensor behind another; how many."""
        begin = 0
        for stored in self._places[at].values():
            for piece in stored.pieces():
                values = piece.read().reshape(-1).view(torch.uint8)
                into[begin : begin + values.numel()].copy_(values)
                begin += _room(piece)
        return begin

    def _expanded(self, at: int, buffer: Tensor) -> dict[tuple[nn.Module, str], nn.Parameter]:
        begin, found = 0, {}
        for place, stored in self._places[at].items():
            pieces: list[Tensor] = []
            for piece in stored.pieces():
                raw = buffer[begin : begin + prod(piece.shape) * piece.dtype.itemsize]
                pieces.append(raw.view(piece.dtype).view(piece.shape))
                begin += _room(piece)
            values = stored.expanded(iter(pieces)).to(self._placement.dtype)
            found[place] = nn.Parameter(values, requires_grad=False)
        return found


def _room(piece: StoredTensor) -> int:
    return -(-prod(piece.shape) * piece.dtype.itemsize // ALIGNED) * ALIGNED


def _assign(parameters: Mapping[tuple[nn.Module, str], nn.Parameter]) -> Any:
    for (module, leaf), parameter in parameters.items():
        module._parameters[leaf] = parameter
