"""The blocks of one forward as a value, for whoever decides which of them run: a step cache."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from sigmagraph.engine.models.arch.mmdit import MMDiT

Streams = tuple[Tensor, Tensor]


class BlockStack:
    """Joint blocks with all they are given: `entering` image [R, N, D] and context [R, L, D], a condition for each.

    `first` is the first block that is not left out. `control` are the residuals that are added after
    blocks, `calls` how each block is called.
    """

    def __init__(
        self,
        network: "MMDiT",
        entering: Streams,
        conditions: Sequence[Tensor],
        skip_layers: Collection[int],
        control: Sequence[Sequence[Tensor]],
        grid: tuple[int, int],
        calls: Sequence[Callable[..., Streams]],
    ) -> None:
        self.network, self.entering, self.grid, self._calls = network, entering, grid, calls
        self._conditions, self._skip_layers, self._control = conditions, skip_layers, control
        self.first = next((i for i in range(network.shape.depth) if i not in skip_layers), network.shape.depth)

    def run(self, streams: Streams, begin: int = 0, end: int | None = None, rows: Tensor | None = None) -> Streams:
        """Blocks from `begin` to `end`, with what is added after them."""
        image, context = streams
        for i in range(begin, self.network.shape.depth if end is None else min(end, self.network.shape.depth)):
            if i not in self._skip_layers:
                block = self.network.joint_blocks[i]
                image, context = self._calls[i](block, image, context, _of(self._conditions[i], rows))
            for residual in self._control[i] if i < len(self._control) else ():
                image = image + (residual if rows is None else residual[rows]).to(image.dtype)
        return image, context

    def modulated(self) -> Tensor:
        """The image tokens as the first block's attention reads them."""
        image, context = self.entering
        if self.first < self.network.shape.depth:
            block = self.network.joint_blocks[self.first]
            image, _ = block(image, context, self._conditions[self.first], only_reads=True)
        return image

    def leave(self, image: Tensor, rows: Tensor | None = None) -> Tensor:
        """The output for tokens that went through all blocks: [R, C, h, w], padding included."""
        return self.network.leave(image, _of(self._conditions[-1], rows), self.grid)


def _of(condition: Tensor, rows: Tensor | None) -> Tensor:
    """A condition [R, D], or what was made of it, [parts, R, D], for some rows."""
    return condition if rows is None else condition.index_select(-2, rows)
