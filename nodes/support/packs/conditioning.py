"""Conditionings as node packs handle them: a list of a context and a dict each, or a list of dicts in a guider."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.regions import Area, Region
from sigmagraph.nodes.support.packs.controls import chain_of, controls_of
from sigmagraph.nodes.support.packs.hooks import HookGroup, parted

__all__ = ["GuiderEntries", "conditioning_back", "conditioning_of", "conditioning_out"]

CONTEXT = "cross_attn"
FOREIGN = {"gligen"}  # parts of an entry that change the picture and are not ours
REGIONS = {"area", "mask", "strength", "mask_strength", "set_area_to_bounds", "default"}
IDLE = "hooks of packs"  # that change nothing on this family, and that a pack looks for
CONTROL = {"control", "control_apply_to_uncond"}
KNOWN = REGIONS | CONTROL | {"hooks", "pooled_output", "start_percent", "end_percent"}


def conditioning_out(conditioning: Any) -> Any:
    """Pairs of a context and a dict of what else there is, as classes of the convention know them."""
    if not isinstance(conditioning, Conditioning):
        return conditioning
    return [[one.context, _entry_out(one)] for one in conditioning.entries]


def _entry_out(entry: Conditioning) -> dict[str, Any]:
    parts: dict[str, Any] = {} if entry.pooled is None else {"pooled_output": entry.pooled}
    if (entry.start, entry.end) != (0.0, 1.0):
        parts |= {"start_percent": entry.start, "end_percent": entry.end}
    extra = dict(entry.extra)
    idle = extra.pop(IDLE, ())
    if entry.hooks or idle:
        parts["hooks"] = HookGroup.of(entry.hooks, idle)
    if entry.controls:
        parts |= {"control": chain_of(entry.controls), "control_apply_to_uncond": entry.shares_controls}
    return parts | _region_out(entry.region) | extra


def _region_out(region: Region | None) -> dict[str, Any]:
    if region is None:
        return {}
    parts: dict[str, Any] = {"area": None, "strength": region.strength, "mask": region.mask}
    if (area := region.area) is not None:
        sides = (area.height, area.width, area.top, area.left)
        parts["area"] = ("percentage", *sides) if area.is_share else sides
    if region.mask is not None:
        parts["mask_strength"] = region.mask_strength
    if region.fits_mask is not None:
        parts["set_area_to_bounds"] = region.fits_mask
    if region.fills:
        parts["default"] = True
    return {name: part for name, part in parts.items() if part is not None}


def conditioning_back(entries: Any) -> Any:
    """The entries with times, regions and ControlNets; what is not ours and would change the picture is refused."""
    if isinstance(entries, GuiderEntries) and entries.value is not None:
        return entries.value
    if not isinstance(entries, list) or not entries or _is_nested(entries[0]):
        return entries  # what is not a conditioning goes on as it is: the pack's own nodes know what it is
    first, *rest = (_entry_back(*(_pair(entry) if isinstance(entry, dict) else entry)) for entry in entries)
    return replace(first, further=tuple(rest))


def _is_nested(entry: Any) -> bool:
    """Whether conditionings stand where the entries of one should."""
    return isinstance(entry, list) and (not entry or isinstance(entry[0], list))


class GuiderEntries(list[dict[str, Any]]):
    """A conditioning as guiders hold it: a dict an entry, the context among the rest.

    It remembers what it came from, so that an untouched one is the same value of ours again.
    """

    def __init__(self, conditioning: Conditioning) -> None:
        super().__init__({CONTEXT: context, **extra} for context, extra in conditioning_out(conditioning))
        self._value, self._came = conditioning, [dict(entry) for entry in self]

    @property
    def value(self) -> Conditioning | None:
        """The value it came from; None once a pack changed something."""
        if len(self) != len(self._came):
            return None
        pairs = zip(self, self._came, strict=True)
        is_same = all(one.keys() == was.keys() and all(one[name] is was[name] for name in was) for one, was in pairs)
        return self._value if is_same and self._has_hooks_as_they_came() else None

    def _has_hooks_as_they_came(self) -> bool:
        """A pack may time or add hooks in the group itself."""
        pairs = zip(self, self._value.entries, strict=True)
        return all(parted(one["hooks"])[0] == was.hooks for one, was in pairs if "hooks" in one)


def conditioning_of(value: Any) -> Conditioning:
    """A conditioning of ours, whichever way a pack holds it. Raises `BadValue` for anything else."""
    made = conditioning_back(value)
    if not isinstance(made, Conditioning):
        raise BadValue("conditioning", type(value).__qualname__, "a list of a context and a dict each")
    return made


def _pair(entry: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    return entry[CONTEXT], {name: part for name, part in entry.items() if name != CONTEXT}


def _entry_back(context: Tensor, extra: dict[str, Any]) -> Conditioning:
    beyond = sorted(FOREIGN & {name for name, value in extra.items() if value is not None})
    if beyond:
        raise ValueError(f"a conditioning with {', '.join(beyond)}; expected one that differs in text, time and place")
    hooks, idle = parted(extra.get("hooks"))
    more = {name: value for name, value in extra.items() if name not in KNOWN}
    return Conditioning(
        context,
        extra.get("pooled_output"),
        extra.get("start_percent", 0.0),
        extra.get("end_percent", 1.0),
        region=_region_back(extra),
        extra=more | ({IDLE: idle} if idle else {}),
        hooks=hooks,
        controls=controls_of(extra.get("control")),
        shares_controls=bool(extra.get("control_apply_to_uncond", False)),
    )


def _region_back(extra: dict[str, Any]) -> Region | None:
    if not REGIONS & {name for name, value in extra.items() if value is not None}:
        return None
    return Region(
        _area_back(extra.get("area")),
        extra.get("mask"),
        extra.get("strength"),
        float(extra.get("mask_strength", 1.0)),
        extra.get("set_area_to_bounds"),
        bool(extra.get("default", False)),
    )


def _area_back(area: Any) -> Area | None:
    if area is None:
        return None
    is_share = area[0] == "percentage"
    height, width, top, left = area[1:] if is_share else area
    return Area(height, width, top, left, is_share)
