"""Step caches: evaluations of a model left out where its answer can be foretold, and what that costs.

A cache is a frozen value on a model. What it has seen lives in a run, one state for each conditioning and image. Knows
no network: models hand it the blocks of a forward as a `Stack`.
"""

from sigmagraph.engine.sampling.caches.drift import Drift, Observed, relative_distance
from sigmagraph.engine.sampling.caches.forward import CachedForward, Stack
from sigmagraph.engine.sampling.caches.rules import BlockCache, FirstBlock, MagCache, TaylorSeer, TeaCache
from sigmagraph.engine.sampling.caches.slot import CacheSlot

__all__ = [
    "BlockCache",
    "CacheSlot",
    "CachedForward",
    "Drift",
    "FirstBlock",
    "MagCache",
    "Observed",
    "Stack",
    "TaylorSeer",
    "TeaCache",
    "relative_distance",
]
