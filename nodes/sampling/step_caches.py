"""Step caches as part of the model value: evaluations left out where they would change little (docs/step-caches.md)."""

import re
from dataclasses import replace
from typing import Annotated, Any

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, Output, Range, Tooltip, node
from sigmagraph.engine.graph.sweep import cache_node
from sigmagraph.engine.models.value import Model as ModelValue
from sigmagraph.engine.sampling.caches import FirstBlock, MagCache, TaylorSeer, TeaCache
from sigmagraph.engine.sampling.guidance import EasyCache, LazyCache
from sigmagraph.nodes.support.types import Model

__all__ = ["NODES", "written_cache"]

Threshold = Annotated[float, Range(0.0, 3.0, step=0.01)]
Change = Annotated[float, Range(0.0, 3.0, step=0.001), Tooltip("The change that may go unseen; 0 leaves nothing out.")]
Percent = Annotated[float, Range(0.0, 1.0, step=0.01)]
Share = Annotated[float, Range(0.0, 1.0, step=0.001)]
Hits = Annotated[int, Range(-1, 1000), Tooltip("How many forwards in a row may be left out; -1: any number.")]
PATCHED = (Output("MODEL"),)


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
    return model.with_step_cache(EasyCache(reuse_threshold, start_percent, end_percent, verbose, per_image=False))


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
    return model.with_step_cache(LazyCache(reuse_threshold, start_percent, end_percent, verbose, per_image=False))


@node("ApplyFBCacheOnModel", category="advanced/step caches", display_name="First-Block Cache", outputs=PATCHED)
def first_block_cache(
    *,
    model: Model,
    object_to_patch: Annotated[str, Extra({"multiline": False}), Tooltip("Always the diffusion model.")] = (
        "diffusion_model"
    ),
    residual_diff_threshold: Annotated[float, Range(0.0, 1.0, step=0.001)] = 0.0,
    start: Percent = 0.0,
    end: Percent = 1.0,
    max_consecutive_cache_hits: Hits = -1,
) -> ModelValue:
    """Leave the other blocks out while what the first block adds has changed little (inputs as in Comfy-WaveSpeed)."""
    if object_to_patch != "diffusion_model":
        raise BadValue("object_to_patch", object_to_patch, "'diffusion_model'")
    cache = FirstBlock(residual_diff_threshold, start=start, end=end, most_hits=max_consecutive_cache_hits)
    return model.with_step_cache(cache)


@node("ApplyTeaCache", category="advanced/step caches", display_name="TeaCache", outputs=PATCHED)
def tea_cache(
    *,
    model: Model,
    threshold: Change = 0.2,
    coefficients: Annotated[
        str, Extra({"multiline": False}), Tooltip("From the input's change to the output's, the highest power first.")
    ] = "1, 0",
    start_percent: Share = 0.0,
    end_percent: Share = 1.0,
) -> ModelValue:
    """Leave all blocks out while the changes of what the first one reads add up to little (Liu 2024)."""
    powers = tuple(_numbers("coefficients", coefficients))
    return model.with_step_cache(TeaCache(threshold, powers, start=start_percent, end=end_percent))


@node("ApplyMagCache", category="advanced/step caches", display_name="MagCache", outputs=PATCHED)
def mag_cache(
    *,
    model: Model,
    threshold: Change = 0.1,
    max_consecutive: Hits = 5,
    magnitudes: Annotated[
        str,
        Extra({"multiline": True}),
        Tooltip("Level and length by turns, as a run's report lists them; empty: from the run itself."),
    ] = "",
    start_percent: Share = 0.2,
    end_percent: Share = 1.0,
) -> ModelValue:
    """Leave all blocks out while the length of what they add is foretold to change little (Ma 2025)."""
    numbers = _numbers("magnitudes", magnitudes)
    if len(numbers) % 2:
        raise BadValue("magnitudes", magnitudes, "a level and a length by turns: '1.0 30.1, 0.9 28.4'")
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    cache = MagCache(threshold, pairs, start=start_percent, end=end_percent, most_hits=max_consecutive)
    return model.with_step_cache(cache)


@node("ApplyTaylorSeer", category="advanced/step caches", display_name="TaylorSeer", outputs=PATCHED)
def taylor_seer(
    *,
    model: Model,
    interval: Annotated[int, Range(1, 100), Tooltip("Every n-th forward is computed; 1 leaves nothing out.")] = 2,
    degree: Annotated[int, Range(0, 4), Tooltip("Of the polynomial that the others are read from.")] = 1,
    warmup: Annotated[int, Range(1, 100), Tooltip("So many forwards at the start are computed.")] = 3,
    start_percent: Share = 0.0,
    end_percent: Share = 1.0,
) -> ModelValue:
    """Compute every n-th forward, and extrapolate what the blocks add in the others (Liu 2025)."""
    return model.with_step_cache(TaylorSeer(interval, degree, warmup, start=start_percent, end=end_percent))


@node(
    "MeasureStepCacheDrift", category="advanced/step caches", display_name="Measure Step-Cache Drift", outputs=PATCHED
)
def measure_drift(*, model: Model, measure: bool = True) -> ModelValue:
    """Sample a second time without the step cache, and report how far the two results are apart."""
    return replace(model, measures_drift=measure)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(word) for word in re.split(r"[\s,;:\[\]()]+", text) if word]
    except ValueError as error:
        raise BadValue(name, text, "numbers, separated by commas") from error


def written_cache(text: str) -> tuple[str, dict[str, Any]]:
    """The node and its inputs, but for the model, of a cache written as in reports: `first_block:0.1`."""
    class_type, chosen = cache_node(text)
    declared = next(one for one in NODES if one.class_type == class_type).declared
    return class_type, {part.name: part.default for part in declared.values() if part.name != "model"} | chosen


NODES = (easy_cache, lazy_cache, first_block_cache, tea_cache, mag_cache, taylor_seer, measure_drift)
