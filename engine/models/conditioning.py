"""What text encoders hand to the diffusion model: token features and one pooled vector per image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.controlnet import Control, in_turn
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.engine.models.moved import MOVED
from sigmagraph.engine.models.regions import Region, Window
from sigmagraph.engine.sampling.precision import is_in_time


@dataclass(frozen=True, eq=False, slots=True)
class Conditioning:
    """Immutable: context [B, L, C] and pooled [B, P], float32. B is 1, or one entry per image of the batch.

    It acts from `start` to `end`, shares of the way from noise (0) to image (1), and within `region` where there is
    one. The adapters of `hooks` are then in the model, and the residuals of `controls` are added. `further` are entries
    beside this one, each with a time and region of its own: the model is asked about every entry that acts, and the
    answers are averaged. With `shares_controls` its controls are meant for the other side of guidance too. `extra` is
    what else an entry carries for nodes that look for it.
    """

    context: Tensor
    pooled: Tensor | None
    start: float = 0.0
    end: float = 1.0
    further: tuple["Conditioning", ...] = ()
    region: Region | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()
    controls: tuple[Control, ...] = ()
    shares_controls: bool = False

    @property
    def entries(self) -> tuple["Conditioning", ...]:
        """This one alone, then those beside it."""
        return (replace(self, further=()), *self.further) if self.further else (self,)

    def beside(self, other: "Conditioning") -> "Conditioning":
        """The entries of both."""
        return replace(self, further=(*self.further, *other.entries))

    def within(self, start: float, end: float) -> "Conditioning":
        """The same, every entry acting between these shares of the way."""
        return self._each(lambda one: replace(one, start=start, end=end))

    def in_region(self, **changes: Any) -> "Conditioning":
        """The same, every entry with these fields of its region changed."""
        return self._each(lambda one: replace(one, region=replace(one.region or Region(), **changes)))

    def with_hooks(self, hooks: tuple[Hook, ...]) -> "Conditioning":
        """The same, the model having these adapters too when it is asked about any of its entries."""
        return self._each(lambda one: replace(one, hooks=(*one.hooks, *hooks)))

    def with_control(self, control: Control, *, is_shared: bool = False) -> "Conditioning":
        """The same, every entry with a ControlNet more, after those it has; whether they are shared is said anew."""
        return self._each(lambda one: replace(one, controls=(*one.controls, control), shares_controls=is_shared))

    def with_shared_controls(self, other: "Conditioning") -> "Conditioning":
        """The other side of guidance, with the controls that `other` shares, unless it has some of its own.

        Entry by entry, in turn: entries of the whole picture count, as for ComfyUI.
        """
        shared = [one for one in other.entries if one.controls and one.shares_controls and one._is_everywhere]
        places = [at for at, one in enumerate(self.entries) if one._is_everywhere]
        if not shared or not places or any(self.entries[at].controls for at in places):
            return self
        entries = list(self.entries)
        for at, one in enumerate(shared):
            given = replace(self.entries[places[at % len(places)]], controls=one.controls)
            if at < len(places):
                entries[places[at]] = given
            else:
                entries.append(given)
        first, *rest = entries
        return replace(first, further=tuple(rest))

    @property
    def _is_everywhere(self) -> bool:
        return self.region is None or self.region.area is None

    def with_extra(self, **more: Any) -> "Conditioning":
        """The same, every entry carrying these things as well."""
        return self._each(lambda one: replace(one, extra={**one.extra, **more}))

    def acts(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> bool:
        """Whether this entry has a say at a noise level; both ends of its time count, to single precision."""
        return is_in_time(sigma, self.start, self.end, percent_to_sigma)

    def zeroed(self) -> "Conditioning":
        """Zeros of the same shapes: not the same as the encoding of an empty text."""

        def zero(one: Conditioning) -> Conditioning:
            pooled = None if one.pooled is None else torch.zeros_like(one.pooled)
            return replace(one, context=torch.zeros_like(one.context), pooled=pooled)

        return self._each(zero)

    def followed_by(self, other: "Conditioning") -> "Conditioning":
        """The tokens of every entry and then of `other`'s first; the pooled vectors of these."""
        if self.context.shape[-1] != other.context.shape[-1]:
            widths = f"{self.context.shape[-1]} and {other.context.shape[-1]}"
            raise BadValue("conditioning", widths, "two conditionings of the same width")
        return self._each(lambda one: replace(one, context=torch.cat([one.context, other.context], dim=1)))

    def mixed(self, other: "Conditioning", strength: float) -> "Conditioning":
        """`strength` of every entry and the rest of `other`'s first, cut or filled with zeros to the entry's length."""

        def mix(one: Conditioning) -> Conditioning:
            context = torch.zeros_like(one.context)
            context[:, : other.context.shape[1]] = other.context[:, : one.context.shape[1]]
            context = torch.lerp(context, one.context, strength)
            first, second = one.pooled, other.pooled
            if first is None or second is None:
                return replace(one, context=context, pooled=second if first is None else first)
            return replace(one, context=context, pooled=torch.lerp(second, first, strength))

        return self._each(mix)

    def on(self, device: torch.device) -> "Conditioning":
        """This entry's tensors on a device: the same ones every time, for as long as they are kept there."""
        pooled = None if self.pooled is None else MOVED.to(self.pooled, device)
        return replace(self, context=MOVED.to(self.context, device), pooled=pooled)

    def for_batch(self, batch: int, device: torch.device) -> "Conditioning":
        """One row per image on `device`: rows are repeated in turn, or cut, to `batch`."""
        pooled = None if self.pooled is None else in_turn(MOVED.to(self.pooled, device), batch)
        return replace(self, context=in_turn(MOVED.to(self.context, device), batch), pooled=pooled)

    def as_controls_read_it(self) -> "Conditioning":
        """The same text, or the one that CLIPTextEncodeControlnet gave for ControlNets alone."""
        context, pooled = (self.extra.get(f"{name}_controlnet") for name in ("cross_attn", "pooled_output"))
        if context is None:
            return self
        return replace(self, context=context, pooled=self.pooled if pooled is None else pooled)

    def _each(self, change: Callable[["Conditioning"], "Conditioning"]) -> "Conditioning":
        """Every entry changed."""
        first, *rest = (change(one) for one in self.entries)
        return replace(first, further=tuple(rest))


def with_windows_answered(sides: Sequence[Sequence[Conditioning]], x: Tensor) -> list[list[Conditioning]]:
    """The entries of each side, and for every window that one side asks about an entry of the others in it.

    That is the smallest of theirs that holds the window; where it has the same window already, nothing is added. So
    guidance compares both sides on the same part of the picture.
    """
    found = [list(side) for side in sides]
    if all(one.region is None for side in found for one in side):
        return found
    for side in reversed(found):
        for one in side:
            window = one.region.window(x) if one.region is not None else None
            if window is None:
                continue
            for other in found:
                if other is not side and (text := _smallest_around(other, window, x)) is not None:
                    other.append(replace(text, region=one.region, start=one.start, end=one.end))
    return found


def _smallest_around(entries: Sequence[Conditioning], window: Window, x: Tensor) -> Conditioning | None:
    """The entry with the smallest window that holds this one; None where none does, or one has just this window."""
    found: tuple[float, Conditioning] | None = None
    for one in entries:
        own = one.region.window(x) if one.region is not None else None
        if own == window:
            return None
        size = float("inf") if own is None else own.height * own.width
        if (own is None or own.holds(window)) and (found is None or size < found[0]):
            found = size, one
    return found[1] if found is not None else None
