"""Adapters that act for one conditioning, and for a part of the way: hooks and their keyframes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sigmagraph.engine.models.files.lora import Adapting
from sigmagraph.engine.sampling.precision import float32

__all__ = ["Hook", "Keyframe", "sorted_keyframes"]


@dataclass(frozen=True, slots=True)
class Keyframe:
    """From a share of the way on, strengths are multiplied by `strength`.

    `guarantee_steps` is kept for nodes that read it: a keyframe acts wherever it is the last that has begun.
    """

    start_percent: float
    strength: float
    guarantee_steps: int = 1


@dataclass(frozen=True, eq=False, slots=True)
class Hook:
    """An adapter, or another checkpoint's difference, with strengths for the diffusion model and for text encoders."""

    adapter: Adapting
    strength_model: float
    strength_clip: float
    keyframes: tuple[Keyframe, ...] = ()

    def with_keyframes(self, keyframes: Iterable[Keyframe]) -> "Hook":
        """The same adapter under other keyframes."""
        return replace(self, keyframes=tuple(keyframes))

    def factor(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
        """What strengths are multiplied by at a noise level; before the first keyframe, that one counts."""
        if not self.keyframes:
            return 1.0
        level = float32(sigma)
        begun = [
            one
            for one in self.keyframes
            if one.start_percent <= 0 or level <= float32(percent_to_sigma(one.start_percent))
        ]
        return (begun[-1] if begun else self.keyframes[0]).strength


def sorted_keyframes(*groups: Iterable[Keyframe]) -> tuple[Keyframe, ...]:
    """All of them by their beginnings; equal beginnings stay in order."""
    return tuple(sorted((one for group in groups for one in group), key=lambda one: one.start_percent))
