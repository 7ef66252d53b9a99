"""Step caches within a denoiser: begun for a run, found to be reported on, and taken out to be compared with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from sigmagraph.engine.sampling.caches.drift import Drift, Weigh, relative_distance

__all__ = ["CacheReport", "Caching", "begun", "caches_in", "reported", "without_caches"]

Part = TypeVar("Part")


@runtime_checkable
class Caching(Protocol):
    """Something in a denoiser that may answer in place of a model, and knows how that went."""

    drift: Drift
    label: str

    def begin_caching(self, weigh: Weigh) -> Any:
        """The same for one run. `weigh` says how much each side it is asked about counts."""

    def without_cache(self) -> Any:
        """What stands in its place in a run that leaves nothing out."""


@runtime_checkable
class OfSeveral(Protocol):
    """A predictor that asks others."""

    def begin_sides(self, weigh: Weigh) -> Any:
        """The same with each of them begun for one run."""


def begun(part: Part, weigh: Weigh) -> Part:
    """A predictor for one run; one without a cache is the same for all."""
    started: Any = part
    if isinstance(part, Caching):
        started = part.begin_caching(weigh)
    elif isinstance(part, OfSeveral):
        started = part.begin_sides(weigh)
    found: Part = started
    return found


def caches_in(value: object) -> Iterator[Caching]:
    """Every cache within a denoiser."""
    if isinstance(value, Caching):
        yield value
    for part in _parts(value).values():
        yield from caches_in(part)


def without_caches(denoiser: Part) -> Part:
    """The same denoiser with every cache taken out."""
    if isinstance(denoiser, Caching):
        plain: Part = denoiser.without_cache()
        return plain
    parts: Any = denoiser
    if type(parts) in (list, tuple):
        listed: Part = type(parts)(map(without_caches, parts))
        return listed
    changed = {name: new for name, part in _parts(denoiser).items() if (new := without_caches(part)) is not part}
    return replace(denoiser, **changed) if changed else denoiser  # type: ignore[type-var]  # a dataclass, if it has parts


def _parts(value: object) -> Mapping[str, object]:
    """What a denoiser is made of, as far as caches can be in it."""
    if isinstance(value, list) or type(value) is tuple:
        return {str(place): part for place, part in enumerate(value)}
    if not is_dataclass(value) or isinstance(value, type | Caching):
        return {}
    is_ours = any(layer in type(value).__module__ for layer in (".sampling.", ".nodes."))
    return {one.name: getattr(value, one.name) for one in fields(value)} if is_ours else {}


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What a step cache did in one run.

    `asked`: estimates of one image given one conditioning, `skipped` those that the model was not asked for. `drift`:
    how far the final latent is from that of the run without a cache, as root mean square in units of its spread, the
    mean over images: estimated, and measured where that was asked for. `is_blind`: nothing was there to estimate from.
    """

    cache: str
    asked: int
    skipped: int
    drift_estimate: float
    drift_measured: float | None = None
    is_blind: bool = False
    magnitudes: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of_images(cls, reports: Sequence["CacheReport"]) -> "CacheReport":
        """The report on a batch whose images ran alone."""
        return replace(
            reports[0],
            asked=sum(one.asked for one in reports),
            skipped=sum(one.skipped for one in reports),
            drift_estimate=sum(one.drift_estimate for one in reports) / len(reports),
            is_blind=any(one.is_blind for one in reports),
        )

    def measured(self, final: Tensor, plain: Tensor) -> "CacheReport":
        """With the distance to the result of the run that left nothing out."""
        return replace(self, drift_measured=float(relative_distance(final, plain).mean()))

    def written(self) -> dict[str, Any]:
        """As JSON values, rounded to three digits: for reports and metadata."""
        told: dict[str, Any] = {"cache": self.cache, "asked": self.asked, "skipped": self.skipped}
        told["drift_estimate"] = _rounded(self.drift_estimate)
        if self.drift_measured is not None:
            told["drift_measured"] = _rounded(self.drift_measured)
        if self.is_blind:
            told["is_blind"] = True
        if self.magnitudes:
            told["magnitudes"] = [[_rounded(level), _rounded(size)] for level, size in self.magnitudes]
        return told


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def reported(denoiser: object, final: Tensor, lowest: float = 0.0) -> CacheReport | None:
    """The report on the caches of a run that ended at level `lowest` with `final`; None where there are none.

    A denoiser with several (one for each network it asks) is reported on as one: their errors add up.
    """
    found = list(caches_in(denoiser))
    if not found:
        return None
    estimate = sum((one.drift.finished(final, lowest) for one in found), final.new_zeros(len(final)).float().cpu())
    drifts = [one.drift for one in found]
    return CacheReport(
        found[0].label,
        sum(drift.asked for drift in drifts),
        sum(drift.skipped for drift in drifts),
        float(estimate.mean()),
        is_blind=any(drift.is_blind for drift in drifts),
        magnitudes=_magnitudes(found),
    )


def _magnitudes(found: Sequence[Caching]) -> tuple[tuple[float, float], ...]:
    """The mean lengths of residuals by level, of a cache that measures them."""
    listed: Callable[[], list[tuple[float, float]]] | None = getattr(found[0], "magnitudes", None)
    return tuple(listed()) if listed is not None else ()
