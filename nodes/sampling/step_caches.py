"""Caches of a run's evaluations, as part of the model value; what they know lives in the run."""

from dataclasses import dataclass, replace
from typing import Annotated

from sigmagraph.engine.graph.node import Output, Range, node
from sigmagraph.engine.models.value import Model as ModelValue
from sigmagraph.engine.sampling.guidance import Cfg, Reuse, network_space
from sigmagraph.nodes.support.types import Model

__all__ = ["NODES"]

Threshold = Annotated[float, Range(0.0, 3.0, step=0.01)]
Percent = Annotated[float, Range(0.0, 1.0, step=0.01)]
PATCHED = (Output("MODEL"),)


@dataclass(frozen=True, slots=True)
class Reusing:
    """Lets a run leave evaluations out between two shares of its way: of each side, or of the guided estimate."""

    threshold: float
    start_percent: float
    end_percent: float
    tells: bool
    is_whole: bool

    def __call__(self, model: ModelValue, guided: Cfg) -> Cfg:
        level = model.parameterisation.levels.percent_to_sigma
        rule = Reuse(self.threshold, level(self.start_percent), level(self.end_percent), tells=self.tells)
        if self.is_whole:
            return replace(guided, reuse_whole=replace(rule, learns_before=True))
        return replace(guided, reuse=replace(rule, space=network_space(model.parameterisation)))


@node("EasyCache", category="advanced/debug/model", experimental=True, outputs=PATCHED)
def easy_cache(
    *,
    model: Model,
    reuse_threshold: Threshold = 0.2,
    start_percent: Percent = 0.15,
    end_percent: Percent = 0.95,
    verbose: bool = False,
) -> ModelValue:
    """Leaves out evaluations of the network while what they would change stays small; each side by itself."""
    return model.with_guidance(Reusing(reuse_threshold, start_percent, end_percent, verbose, is_whole=False))


@node("LazyCache", category="advanced/debug/model", experimental=True, outputs=PATCHED)
def lazy_cache(
    *,
    model: Model,
    reuse_threshold: Threshold = 0.2,
    start_percent: Percent = 0.15,
    end_percent: Percent = 0.95,
    verbose: bool = False,
) -> ModelValue:
    """As Easy Cache, but of the guided estimate as a whole, whatever guides it."""
    return model.with_guidance(Reusing(reuse_threshold, start_percent, end_percent, verbose, is_whole=True))


NODES = (easy_cache, lazy_cache)
