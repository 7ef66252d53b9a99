"""Blocks of a transformer run through torch.compile: each kind of block is one graph for every size of picture.

One compiled function serves every network of the process. So networks of equal shapes, such as a model with another
adapter merged, share their graphs, and a network that leaves takes nothing with it.
"""

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import is_out_of_memory
from sigmagraph.engine.models.arch.mmdit import BlockCall, JointBlock, call_block

log = logging.getLogger(__name__)
MOST_GRAPHS = 64  # of one function: every shape of network has two or three, and as many for a batch of one


class CompiledBlocks:
    """Calls a block compiled. Where compiling fails, it says so once and calls blocks as they are from then on.

    `graphs` were made in all. `recompiles` are those beyond the first of a kind of block: more than 0 is a defect.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend, self.graphs, self.recompiles = backend, 0, 0
        self.failure, self._is_made = "", False
        self._kinds: set[Hashable] = set()
        self._call: BlockCall | None = None

    def __call__(self, block: JointBlock, image: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        if self.failure:
            return call_block(block, image, context, condition)
        call, self._is_made = self._call or self._prepared(), False
        try:
            found = call(block, image, context, condition)
        except Exception as error:  # whatever a compiler, a driver or a missing tool raises
            if is_out_of_memory(error):
                raise
            found = call_block(block, image, context, condition)
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            log.warning("torch.compile failed; blocks run as they are: %s", self.failure)
        if self._is_made:
            self._count(_kind(block, image, condition))
        return found

    def stats(self) -> dict[str, int | str]:
        """For reports."""
        return {"graphs": self.graphs, "recompiles": self.recompiles, "failure": self.failure}

    def _prepared(self) -> BlockCall:
        from torch._dynamo import config, lookup_backend
        from torch.fx.experimental import _config as symbols

        symbols.use_duck_shape = False  # as many tokens as channels are chance, not a rule
        config.recompile_limit = max(config.recompile_limit, MOST_GRAPHS)
        compiler = lookup_backend(self.backend)

        def counted(graph: Any, examples: list[Tensor]) -> Callable[..., Any]:
            self._is_made = True  # asked twice for one graph where torch starts its analysis again
            made: Callable[..., Any] = compiler(graph, examples)
            return made

        self._call = torch.compile(call_block, dynamic=True, backend=counted)
        return self._call

    def _count(self, kind: Hashable) -> None:
        self.graphs += 1
        self.recompiles += kind in self._kinds
        self._kinds.add(kind)


def _kind(block: JointBlock, image: Tensor, condition: Tensor) -> Hashable:
    """What makes a graph of its own: the block's parts and widths, the precision, and a batch of one."""
    layers = tuple(type(layer) for layer in block.modules())
    return layers, block.is_last, image.shape[-1], image.dtype, image.device, len(image) == 1, condition.ndim
