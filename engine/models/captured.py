"""Small forwards as CUDA graphs: where a card computes faster than the host can say what to compute.

A forward of one size is captured when it is asked for again and again; then its inputs are copied into the places that
the graph reads, and one call starts all its kernels. The numbers are the same, bit for bit.
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import is_out_of_memory
from sigmagraph.engine.models.arch.mmdit import Beforehand

log = logging.getLogger(__name__)
MOST_TOKENS = 2048  # of all pictures of a forward: measured on one H200, 1024 take 22 ms instead of 41
PLAIN_CALLS = 2  # of one size before it is captured: a first step compiles and makes tables
MOST_KEPT = 4  # graphs of a network, each with the memory of one forward

Replay = Callable[[], None]
Capture = Callable[[Callable[[], Tensor], torch.device], tuple[Replay, Tensor]]


def cuda_graph(forward: Callable[[], Tensor], device: torch.device) -> tuple[Replay, Tensor]:
    """Capture what `forward` tells the card: what replays it, and the tensor that holds the result then."""
    with torch.cuda.device(device):
        side, now = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):
            forward()  # libraries set themselves up
        now.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            found = forward()
    return graph.replay, found


class CapturedForwards:
    """The graphs of one network, which keeps this. Where capturing fails, forwards stay as they are.

    Only forwards that are told tables can be captured: their inputs are the state, the table and the tokens.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self._capture, self.failure, self.replays = capture, "", 0
        self._asked: Counter[Hashable] = Counter()
        self._graphs: OrderedDict[Hashable, tuple[Replay, Tensor, Sequence[Tensor]]] = OrderedDict()

    def __call__(self, network: Callable[..., Tensor], patch: int, *given: Tensor, **options: Any) -> Tensor:
        """What `network(*given, **options)` returns; `patch` is the side of a token."""
        told: Beforehand | None = options.get("beforehand")
        rows, _, height, width = given[0].shape
        tokens = rows * (-(-height // patch)) * (-(-width // patch))
        if told is None or self.failure or tokens > MOST_TOKENS or options.get("control"):
            return network(*given, **options)
        inputs = given[0], *told
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs), options.get("skip_layers")
        self._asked[key] += 1
        if self._asked[key] <= PLAIN_CALLS:
            return network(*given, **options)
        found = self._graphs.pop(key, None) or self._captured(network, given, options, told)
        if found is None:
            return network(*given, **options)
        self._graphs[key] = found
        while len(self._graphs) > MOST_KEPT:
            self._graphs.popitem(last=False)
        replay, result, places = found
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value)
        replay()
        self.replays += 1
        return result.clone()

    def _captured(
        self, network: Callable[..., Tensor], given: Sequence[Tensor], options: dict[str, Any], told: Beforehand
    ) -> tuple[Replay, Tensor, Sequence[Tensor]] | None:
        state, table, tokens = places = [tensor.clone() for tensor in (given[0], *told)]
        rest = given[1:]  # told a table, a forward does not look at them
        inside = {**options, "beforehand": Beforehand(table, tokens)}
        try:
            replay, result = self._capture(lambda: network(state, *rest, **inside), state.device)
        except Exception as error:  # whatever a driver or a library raises
            if is_out_of_memory(error):
                raise
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            log.warning("no CUDA graph could be captured; forwards run as they are: %s", self.failure)
            return None
        return replay, result, places
