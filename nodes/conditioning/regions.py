"""Where, when and how strongly a conditioning acts, and two conditionings that share a picture by places."""

from typing import Annotated

from torch import Tensor

from sigmagraph.engine.graph.node import Options, Output, Range, Tooltip, node
from sigmagraph.engine.models.conditioning import Conditioning as ConditioningValue
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.engine.models.regions import Area
from sigmagraph.nodes.support.types import Conditioning, Hooks, Mask, TimestepsRange

__all__ = ["NODES"]

PIXELS = 8  # of a place of the latent
Side = Annotated[int, Range(64, 16384, step=8), Tooltip("In pixels.")]
Place = Annotated[int, Range(0, 16384, step=8), Tooltip("In pixels.")]
Share = Annotated[float, Range(0, 1.0, step=0.01)]
Strength = Annotated[float, Range(0.0, 10.0, step=0.01), Tooltip("How much it counts beside other entries.")]
CondArea = Annotated[
    str, Options(["default", "mask bounds"]), Tooltip("Ask about all of the picture, or the mask's rectangle alone.")
]
Percent = Annotated[float, Range(0.0, 1.0, step=0.001)]
PAIR = (Output("CONDITIONING", "positive"), Output("CONDITIONING", "negative"))


@node("ConditioningSetArea", category="conditioning", display_name="Conditioning (Set Area)")
def set_area(
    *,
    conditioning: Conditioning,
    width: Side = 64,
    height: Side = 64,
    x: Place = 0,
    y: Place = 0,
    strength: Strength = 1.0,
) -> Conditioning:
    """Let a conditioning act in a rectangle."""
    area = Area(height // PIXELS, width // PIXELS, y // PIXELS, x // PIXELS)
    return conditioning.in_region(area=area, strength=strength, fits_mask=False)


@node("ConditioningSetAreaPercentage", category="conditioning", display_name="Conditioning (Set Area with Percentage)")
def set_area_percentage(
    *,
    conditioning: Conditioning,
    width: Share = 1.0,
    height: Share = 1.0,
    x: Share = 0,
    y: Share = 0,
    strength: Strength = 1.0,
) -> Conditioning:
    """Let a conditioning act in a rectangle given in shares of the picture."""
    area = Area(height, width, y, x, is_share=True)
    return conditioning.in_region(area=area, strength=strength, fits_mask=False)


@node("ConditioningSetAreaStrength", category="conditioning")
def set_area_strength(*, conditioning: Conditioning, strength: Strength = 1.0) -> Conditioning:
    """How much a conditioning counts beside others."""
    return conditioning.in_region(strength=strength)


@node("ConditioningSetMask", category="conditioning", display_name="Conditioning (Set Mask)")
def set_mask(
    *, conditioning: Conditioning, mask: Mask, strength: Strength = 1.0, set_cond_area: CondArea
) -> Conditioning:
    """Let a conditioning act as far as a mask says."""
    return _masked(conditioning, mask, strength, set_cond_area)


@node(
    "ConditioningTimestepsRange",
    category="advanced/hooks",
    display_name="Timesteps Range",
    experimental=True,
    outputs=[
        Output("TIMESTEPS_RANGE"),
        Output("TIMESTEPS_RANGE", "BEFORE_RANGE"),
        Output("TIMESTEPS_RANGE", "AFTER_RANGE"),
    ],
)
def timesteps_range(
    *, start_percent: Percent = 0.0, end_percent: Percent = 1.0
) -> tuple[TimestepsRange, TimestepsRange, TimestepsRange]:
    """A part of the way, what comes before it, and what comes after."""
    return (start_percent, end_percent), (0.0, start_percent), (end_percent, 1.0)


@node(
    "ConditioningSetProperties", category="advanced/hooks/cond single", display_name="Cond Set Props", experimental=True
)
def set_properties(
    *,
    cond_NEW: Conditioning,
    strength: Strength = 1.0,
    set_cond_area: CondArea,
    mask: Mask | None = None,
    hooks: Hooks | None = None,
    timesteps: TimestepsRange | None = None,
) -> Conditioning:
    """Mask, hooks and time of a conditioning at once."""
    return _with_properties(cond_NEW, strength, set_cond_area, mask, hooks, timesteps)


@node(
    "ConditioningSetPropertiesAndCombine",
    category="advanced/hooks/cond single",
    display_name="Cond Set Props Combine",
    experimental=True,
)
def set_properties_and_combine(
    *,
    cond: Conditioning,
    cond_NEW: Conditioning,
    strength: Strength = 1.0,
    set_cond_area: CondArea,
    mask: Mask | None = None,
    hooks: Hooks | None = None,
    timesteps: TimestepsRange | None = None,
) -> Conditioning:
    """Mask, hooks and time of a second conditioning, and both side by side."""
    return cond.beside(_with_properties(cond_NEW, strength, set_cond_area, mask, hooks, timesteps))


@node(
    "ConditioningSetDefaultCombine",
    category="advanced/hooks/cond single",
    display_name="Cond Set Default Combine",
    experimental=True,
)
def set_default_combine(*, cond: Conditioning, cond_DEFAULT: Conditioning, hooks: Hooks | None = None) -> Conditioning:
    """A second conditioning that acts where the first leaves room."""
    return cond.beside(_default(cond_DEFAULT, hooks))


@node(
    "PairConditioningSetProperties",
    category="advanced/hooks/cond pair",
    display_name="Cond Pair Set Props",
    experimental=True,
    outputs=PAIR,
)
def pair_set_properties(
    *,
    positive_NEW: Conditioning,
    negative_NEW: Conditioning,
    strength: Strength = 1.0,
    set_cond_area: CondArea,
    mask: Mask | None = None,
    hooks: Hooks | None = None,
    timesteps: TimestepsRange | None = None,
) -> tuple[Conditioning, Conditioning]:
    """Mask, hooks and time of both sides at once."""
    given = (strength, set_cond_area, mask, hooks, timesteps)
    return _with_properties(positive_NEW, *given), _with_properties(negative_NEW, *given)


@node(
    "PairConditioningSetPropertiesAndCombine",
    category="advanced/hooks/cond pair",
    display_name="Cond Pair Set Props Combine",
    experimental=True,
    outputs=PAIR,
)
def pair_set_properties_and_combine(
    *,
    positive: Conditioning,
    negative: Conditioning,
    positive_NEW: Conditioning,
    negative_NEW: Conditioning,
    strength: Strength = 1.0,
    set_cond_area: CondArea,
    mask: Mask | None = None,
    hooks: Hooks | None = None,
    timesteps: TimestepsRange | None = None,
) -> tuple[Conditioning, Conditioning]:
    """Mask, hooks and time of a second pair, and both pairs side by side."""
    given = (strength, set_cond_area, mask, hooks, timesteps)
    first, second = _with_properties(positive_NEW, *given), _with_properties(negative_NEW, *given)
    return positive.beside(first), negative.beside(second)


@node(
    "PairConditioningCombine",
    category="advanced/hooks/cond pair",
    display_name="Cond Pair Combine",
    experimental=True,
    outputs=PAIR,
)
def pair_combine(
    *, positive_A: Conditioning, negative_A: Conditioning, positive_B: Conditioning, negative_B: Conditioning
) -> tuple[Conditioning, Conditioning]:
    """Two pairs side by side."""
    return positive_A.beside(positive_B), negative_A.beside(negative_B)


@node(
    "PairConditioningSetDefaultCombine",
    category="advanced/hooks/cond pair",
    display_name="Cond Pair Set Default Combine",
    experimental=True,
    outputs=PAIR,
)
def pair_set_default_combine(
    *,
    positive: Conditioning,
    negative: Conditioning,
    positive_DEFAULT: Conditioning,
    negative_DEFAULT: Conditioning,
    hooks: Hooks | None = None,
) -> tuple[Conditioning, Conditioning]:
    """A second pair that acts where the first leaves room."""
    return positive.beside(_default(positive_DEFAULT, hooks)), negative.beside(_default(negative_DEFAULT, hooks))


def _masked(conditioning: ConditioningValue, mask: Tensor, strength: float, cond_area: str) -> ConditioningValue:
    drawn = mask if mask.ndim > 2 else mask[None]
    return conditioning.in_region(mask=drawn, mask_strength=strength, fits_mask=cond_area != "default")


def _with_properties(
    conditioning: ConditioningValue,
    strength: float,
    cond_area: str,
    mask: Tensor | None,
    hooks: tuple[Hook, ...] | None,
    timesteps: tuple[float, float] | None,
) -> ConditioningValue:
    """Without a mask, strength and area say nothing."""
    if mask is not None:
        conditioning = _masked(conditioning, mask, strength, cond_area)
    if timesteps is not None:
        conditioning = conditioning.within(*timesteps)
    return _hooked(conditioning, hooks)


def _default(conditioning: ConditioningValue, hooks: tuple[Hook, ...] | None) -> ConditioningValue:
    return _hooked(conditioning.in_region(fills=True), hooks)


def _hooked(conditioning: ConditioningValue, hooks: tuple[Hook, ...] | None) -> ConditioningValue:
    return conditioning if hooks is None else conditioning.with_hooks(hooks)


NODES = (
    set_area,
    set_area_percentage,
    set_area_strength,
    set_mask,
    timesteps_range,
    set_properties,
    set_properties_and_combine,
    set_default_combine,
    pair_set_properties,
    pair_set_properties_and_combine,
    pair_combine,
    pair_set_default_combine,
)
