"""The slopes that Heun++ looks at: here, at the next level and at the one after it, each reached along the last."""

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from sigmagraph.engine.sampling.solver import Evaluate

Slopes: TypeAlias = Generator[Evaluate, Any, tuple[list[float], list[Tensor]]]


def slopes_ahead(x: Tensor, denoised: Tensor, levels: Sequence[float], last: float) -> Slopes:
    """Levels and slopes, the first of them known; none at the `last` level of the run."""
    known, slopes = [levels[0]], [(x - denoised) / levels[0]]
    state = x
    for level in levels[1:]:
        if level == last:
            break
        state = state + slopes[-1] * (level - known[-1])
        further: Tensor = yield Evaluate(state, level)
        known.append(level)
        slopes.append((state - further) / level)
    return known, slopes
