"""Consistency sampling whose latent grows between steps, and noise for states that change their size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from sigmagraph.engine.sampling.options import Choices, Interval
from sigmagraph.engine.sampling.resize import METHODS, resized
from sigmagraph.engine.sampling.solver import Context, Evaluate, Step, Steps

Scale: TypeAlias = Annotated[float, Interval(0.1, 20.0)]
ScaleSteps: TypeAlias = Annotated[int | None, Interval(0, 1000)]
Method: TypeAlias = Annotated[str, Choices(METHODS)]


@dataclass
class NoiseOfAnySize:
    """Noise for states that grow: `draw` gives the first state's shape, and what one draw leaves over the next takes.

    `apart`: every image takes from its own draws, so that it does not depend on the batch.
    """

    draw: Callable[[], Tensor]
    apart: bool
    left: Tensor | None = None

    def like(self, x: Tensor) -> Tensor:
        """Unit noise shaped like `x`."""
        rows = x.shape[0] if self.apart else 1
        count = x.numel() // rows
        while self.left is None or self.left.shape[1] < count:
            drawn = self.draw().reshape(rows, -1)
            self.left = drawn if self.left is None else torch.cat([self.left, drawn], dim=1)
        taken, self.left = self.left[:, :count], self.left[:, count:]
        return taken.reshape(x.shape)


def growing(
    x: Tensor,
    sigmas: Sequence[float],
    ctx: Context,
    scale: float,
    scale_steps: int | None,
    method: str,
    noise: NoiseOfAnySize,
) -> Steps:
    """The estimate, resized on its way to `scale` times the size in `scale_steps` steps (None: half), noised afresh."""
    height, width = x.shape[-2:]
    steps = max(len(sigmas) // 2, 1) if scale_steps is None else min(scale_steps, len(sigmas))
    for place, (sigma, sigma_next) in enumerate(pairwise(sigmas), 1):
        denoised: Tensor = yield Evaluate(x, sigma)
        x = denoised
        if place <= steps:
            grown = 1.0 + (scale - 1.0) * place / steps
            x = resized(x, max(round(width * grown), 1), max(round(height * grown), 1), method)
        if sigma_next > 0:
            x = x * ctx.process.alpha(sigma_next) + noise.like(x) * sigma_next
        yield Step(x, denoised)
    return x
