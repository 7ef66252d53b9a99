"""Any change of values applied to what guidance adds, before it is scaled."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from sigmagraph.engine.sampling.guidance.cfg import Estimates, has_uncond


@dataclass(frozen=True)
class Operated:
    """C - U, or C where there is no U, goes through `operation`."""

    operation: Callable[[Tensor], Tensor]

    def __call__(self, known: Estimates) -> Estimates:
        if not has_uncond(known):
            changed = self.operation(known.cond)
            return replace(known, cond=changed, uncond=changed)
        return replace(known, cond=self.operation(known.cond - known.uncond) + known.uncond)
