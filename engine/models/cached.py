"""A model asked through a step cache: every entry of every conditioning has a state of its own, which a run keeps."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.sampling.caches import BlockCache, CachedForward, CacheSlot, Drift, Observed
from sigmagraph.engine.sampling.caches.drift import Weigh

if TYPE_CHECKING:
    from sigmagraph.engine.models.value import Model, Pass

__all__ = ["Cached", "CachedPredict", "cached_forward"]

Combine = Callable[[Sequence[tuple["Pass", Tensor]]], Tensor]
"""What the network said about each entry of a conditioning -> the estimate."""


@dataclass(eq=False)
class CacheState:
    """What one run has seen: a slot for each entry, by its place, its text and what computes it."""

    slots: dict[Hashable, CacheSlot] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CachedPredict:
    """`Model.predict` with a step cache. Called outside of a run it leaves nothing out and keeps nothing."""

    model: "Model"
    rule: BlockCache
    drift: Drift = field(default_factory=Drift, repr=False, compare=False)
    state: CacheState | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The rule and its main number."""
        return f"{self.rule.label}:{self.rule.setting:g}"

    @property
    def fingerprint(self) -> str:
        """What a recorded run with it must have been made with."""
        return f"{self.model.fingerprint} {self.rule}"

    def begin_caching(self, weigh: Weigh) -> "CachedPredict":
        """The same for one run, which has seen nothing yet."""
        return replace(self, drift=Drift(weigh), state=CacheState())

    def without_cache(self) -> Any:
        """The model itself."""
        return self.model.predict

    def magnitudes(self) -> list[tuple[float, float]]:
        """Level and mean length of the residual's tokens there, over all sides and images; noted by MagCache alone."""
        found: dict[float, list[float]] = {}
        for slot in self.state.slots.values() if self.state is not None else ():
            for level, length in (pair for row in slot.norms for pair in row):
                found.setdefault(level, []).append(length)
        return [(level, sum(lengths) / len(lengths)) for level, lengths in sorted(found.items(), reverse=True)]

    def __call__(self, x: Tensor, sigma: float, conditionings: Sequence[Conditioning]) -> list[Tensor]:
        """As `Model.predict`."""
        from sigmagraph.engine.models.value import answered, combined

        state = self.state or CacheState()
        level = self.model.parameterisation.levels.percent_to_sigma
        is_acting = level(self.rule.start) >= sigma > level(self.rule.end)
        asked = slotted(self.model.passes(x, sigma, conditionings), state.slots, self.rule, sigma, is_acting)
        found = answered(asked)
        combine = partial(combined, self.model.parameterisation, x, sigma)
        estimates = [combine([(one, found[id(one)]) for one in entries]) for entries in asked]
        sides = [
            _observed(entries, estimate, combine, found) for entries, estimate in zip(asked, estimates, strict=True)
        ]
        self.drift.observe(sigma, sides)
        return estimates


def slotted(
    asked: Sequence[Sequence["Pass"]], slots: dict[Hashable, CacheSlot], rule: BlockCache, sigma: float, is_acting: bool
) -> list[list["Pass"]]:
    """The passes with their slots. What changes a residual is in the key: the text, the adapters, the controls."""
    found = []
    for place, entries in enumerate(asked, start=-len(asked)):
        row = []
        for at, one in enumerate(entries):
            text = one.text or one.entry
            held = text.context, text.pooled, text.region, *(control.hint for control in one.entry.controls)
            key = (
                place,
                at,
                one.alike,
                one.model.skip_layers,
                one.model.attention,
                one.model.inside,
                one.window,
                *map(id, held),
                len(one.fed),
            )
            slot = slots.setdefault(key, CacheSlot(len(one.fed), held))
            row.append(replace(one, cached=Cached(rule, slot, sigma, is_acting)))
        found.append(row)
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Cached:
    """How a pass is to be answered: by a rule, from and into a slot."""

    rule: BlockCache
    slot: CacheSlot
    sigma: float
    is_acting: bool


def cached_forward(rows: Sequence["Pass"], network: object) -> CachedForward | None:
    """Who answers for the blocks in a forward of these passes; None where they simply run."""
    if (first := rows[0].cached) is None:
        return None
    if not hasattr(network, "joint_blocks"):
        allowed = "a network of joint blocks, such as SD3's, or EasyCache and LazyCache, which look at its output alone"
        raise BadValue(f"step cache {first.rule.label}", f"a network of class {type(network).__name__}", allowed)
    if getattr(network, "trains", False):
        raise BadValue(f"step cache {first.rule.label}", "a network that is trained", "a model without a step cache")
    slots = [one.cached.slot for one in rows if one.cached is not None]
    return CachedForward.over(first.rule, slots, first.sigma, first.is_acting)


def _observed(entries: Sequence["Pass"], estimate: Tensor, combine: Combine, found: Mapping[int, Tensor]) -> Observed:
    """What became of one conditioning: a row is full where all its entries were, and checked likewise."""
    verdicts = [one.cached.slot.verdict for one in entries if one.cached is not None and one.cached.slot.verdict]
    rows = range(len(estimate))
    is_full = [all(verdict.is_full[row] for verdict in verdicts) for row in rows]
    checked = [is_full[row] and any(verdict.checked[row] for verdict in verdicts) for row in rows]
    forecast = None
    if any(checked):
        foretold = [
            (one, found[id(one)] if verdict.forecast is None else verdict.forecast)
            for one, verdict in zip(entries, verdicts, strict=True)
        ]
        forecast = combine(foretold)
    reach = [max((verdict.reach[row] for verdict in verdicts), default=0.0) for row in rows]
    return Observed(is_full, checked, estimate, forecast, reach)
