"""ControlNets as node packs handle them: objects with a hint set on a copy and a chain of earlier ones behind it.

Ours are immutable values; these stand for them on a pack's side and are taken back when the pack returns them.
"""

from typing import Any, Self

from torch import Tensor

from sigmagraph.engine.models.controlnet import Control, ControlNet

__all__ = ["ControlBase", "PackControlNet", "chain_of", "controls_of", "net_of"]


class ControlBase:
    """What packs ask about a ControlNet, whichever it is."""

    def __init__(self, device: Any = None) -> None:
        self.device = device
        self.cond_hint_original: Tensor | None = None
        self.strength = 1.0
        self.timestep_percent_range = (0.0, 1.0)
        self.vae: Any = None
        self.extra_concat_orig: list[Tensor] = []
        self.extra_args: dict[str, Any] = {}
        self.previous_controlnet: ControlBase | None = None

    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: list[Tensor] | None = None,
    ) -> Self:
        """A picture [B, C, H, W] in 0..1, how strongly and when it acts; the object itself, as packs chain calls."""
        self.cond_hint_original = cond_hint
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.vae = vae if vae is not None else self.vae
        self.extra_concat_orig = list(extra_concat or [])
        return self

    def set_previous_controlnet(self, controlnet: "ControlBase | None") -> Self:
        """The one that acts before this one."""
        self.previous_controlnet = controlnet
        return self

    def set_extra_arg(self, argument: str, value: Any = None) -> None:
        """An option of nets of several types."""
        self.extra_args[argument] = value

    def cleanup(self) -> None:
        """Nothing is kept between runs."""

    def get_models(self) -> list[Any]:
        """Networks that packs would have loaded; the engine sees to its own."""
        return []


class PackControlNet(ControlBase):
    """A ControlNet of ours on a pack's side."""

    def __init__(self, net: ControlNet) -> None:
        super().__init__()
        self.net = net
        self.extra_args = dict(net.options)
        self._stands_for: tuple[Control, tuple[Any, ...]] | None = None

    def copy(self) -> "PackControlNet":
        """Another object for the same net, with what is set on this one but for the chain."""
        made = PackControlNet(self.net)
        made.__dict__ |= {**self.__dict__, "extra_args": dict(self.extra_args), "previous_controlnet": None}
        return made

    def standing_for(self, control: Control) -> Self:
        """The object of a control of ours, which comes back as long as nothing was changed."""
        masks = [] if control.mask is None else [control.mask]
        hint, span = control.hint.movedim(-1, 1), (control.start, control.end)
        self.set_cond_hint(hint, control.strength, span, control.vae, masks)
        self._stands_for = control, self._set
        return self

    @property
    def control(self) -> Control:
        """The control that was set on this object; one and the same while it stays so."""
        known = self._stands_for
        if known is not None and all(ours is now for ours, now in zip(known[1], self._set, strict=True)):
            return known[0]
        if self.cond_hint_original is None:
            raise ValueError("a ControlNet without a picture; expected one whose set_cond_hint was called")
        start, end = self.timestep_percent_range
        mask = self.extra_concat_orig[0] if self.extra_concat_orig else None
        hint = self.cond_hint_original.movedim(1, -1)
        made = Control(net_of(self), hint, self.vae, self.strength, start, end, mask)
        self._stands_for = made, self._set
        return made

    @property
    def _set(self) -> tuple[Any, ...]:
        masks = self.extra_concat_orig[0] if self.extra_concat_orig else None
        return self.cond_hint_original, self.strength, self.timestep_percent_range, self.vae, masks


def chain_of(controls: tuple[Control, ...]) -> PackControlNet | None:
    """The last of some controls, the others behind it."""
    last: PackControlNet | None = None
    for control in controls:
        last = PackControlNet(control.net).standing_for(control).set_previous_controlnet(last)
    return last


def controls_of(last: Any) -> tuple[Control, ...]:
    """A chain as our controls, the first one first. Raises `ValueError` for one that a pack made of its own."""
    found: list[Control] = []
    while last is not None:
        net_of(last)
        found.append(last.control)
        last = last.previous_controlnet
    return tuple(reversed(found))


def net_of(control: Any) -> ControlNet:
    """The net behind an object of ours; one of a pack's own class may compute something else and is refused."""
    if type(control) is not PackControlNet:
        kind = type(control).__qualname__
        raise ValueError(f"a ControlNet of a pack's own class {kind}; expected one that ControlNetLoader gave")
    return control.net.with_options(**control.extra_args) if control.extra_args else control.net
