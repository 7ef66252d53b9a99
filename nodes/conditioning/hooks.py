"""Adapters that act for one conditioning and a part of the way: made, timed, combined, put on text encoders."""

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import torch

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.graph.node import Extra, FileIn, Options, Output, Range, Socket, Tooltip, node
from sigmagraph.engine.models import load_adapter
from sigmagraph.engine.models.difference import load_difference
from sigmagraph.engine.models.hooks import Hook, Keyframe, sorted_keyframes
from sigmagraph.nodes.conditioning.conditioning import NO_CLIP
from sigmagraph.nodes.models.loaders import computing
from sigmagraph.nodes.support.types import Clip, Engine, Hooks, Keyframes, present

__all__ = ["NODES"]

logger = logging.getLogger(__name__)

CheckpointName = Annotated[str, FileIn("checkpoints"), Tooltip("A file in models/checkpoints.")]
LoraName = Annotated[str, FileIn("loras"), Tooltip("A file in models/loras.")]
Strength = Annotated[float, Range(-20.0, 20.0, step=0.01)]
Percent = Annotated[float, Range(0.0, 1.0, step=0.001)]
MAKING, TIMING, COMBINING = "advanced/hooks/create", "advanced/hooks/scheduling", "advanced/hooks/combine"
KEYFRAMES = (Output("HOOK_KEYFRAMES", "HOOK_KF"),)
Values = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
CURVES: Mapping[str, Callable[[Values], Values]] = {
    "linear": lambda share: share,
    "ease_in": lambda share: share**2,
    "ease_out": lambda share: 1 - (1 - share) ** 2,
    "ease_in_out": lambda share: (1 - np.cos(share * np.float32(np.pi))) / 2,
}


@node("CreateHookLora", category=MAKING, display_name="Create Hook LoRA", experimental=True)
def create_hook_lora(
    *,
    lora_name: LoraName,
    strength_model: Strength = 1.0,
    strength_clip: Strength = 1.0,
    prev_hooks: Hooks | None = None,
    services: Engine,
) -> Hooks:
    """An adapter for the conditionings that carry it, after those before it."""
    if not strength_model and not strength_clip:
        return prev_hooks or ()
    adapter = load_adapter(services.path("loras", lora_name))
    return (*(prev_hooks or ()), Hook(adapter, strength_model, strength_clip))


@node("CreateHookLoraModelOnly", category=MAKING, display_name="Create Hook LoRA (MO)", experimental=True)
def create_hook_lora_model_only(
    *, lora_name: LoraName, strength_model: Strength = 1.0, prev_hooks: Hooks | None = None, services: Engine
) -> Hooks:
    """An adapter for the diffusion model alone."""
    made: Any = create_hook_lora(
        lora_name=lora_name,
        strength_model=strength_model,
        strength_clip=0.0,
        prev_hooks=prev_hooks,
        services=services,
    )
    return made  # type: ignore[no-any-return]  # a node called as a function


@node(
    "CreateHookModelAsLora",
    category=MAKING,
    display_name="Create Hook Model as LoRA",
    experimental=True,
    fingerprint=computing,
)
def create_hook_model_as_lora(
    *,
    ckpt_name: CheckpointName,
    strength_model: Strength = 1.0,
    strength_clip: Strength = 1.0,
    prev_hooks: Hooks | None = None,
    services: Engine,
) -> Hooks:
    """What another checkpoint has different, as if it were an adapter, after those before it.

    At strength 1 its weights take the place of the model's own; text encoders that it lacks stay.
    """
    if not strength_model and not strength_clip:
        return prev_hooks or ()
    other = load_difference(services.path("checkpoints", ckpt_name))
    if strength_clip and not other.encoders:
        logger.warning("%s holds no text encoder: strength_clip changes nothing", ckpt_name)
    return (*(prev_hooks or ()), Hook(other, strength_model, strength_clip))


@node(
    "CreateHookModelAsLoraModelOnly",
    category=MAKING,
    display_name="Create Hook Model as LoRA (MO)",
    experimental=True,
    fingerprint=computing,
)
def create_hook_model_as_lora_model_only(
    *, ckpt_name: CheckpointName, strength_model: Strength = 1.0, prev_hooks: Hooks | None = None, services: Engine
) -> Hooks:
    """What the diffusion model of another checkpoint has different, as if it were an adapter."""
    made: Any = create_hook_model_as_lora(
        ckpt_name=ckpt_name,
        strength_model=strength_model,
        strength_clip=0.0,
        prev_hooks=prev_hooks,
        services=services,
    )
    return made  # type: ignore[no-any-return]  # a node called as a function


@node("CreateHookKeyframe", category=TIMING, display_name="Create Hook Keyframe", experimental=True, outputs=KEYFRAMES)
def create_hook_keyframe(
    *, strength_mult: Strength = 1.0, start_percent: Percent = 0.0, prev_hook_kf: Keyframes | None = None
) -> Keyframes:
    """From a share of the way on, strengths are multiplied by this."""
    return sorted_keyframes(prev_hook_kf or (), [Keyframe(start_percent, strength_mult)])


@node(
    "CreateHookKeyframesInterpolated",
    category=TIMING,
    display_name="Create Hook Keyframes Interp.",
    experimental=True,
    outputs=KEYFRAMES,
)
def create_hook_keyframes_interpolated(
    *,
    strength_start: Annotated[float, Range(0.0, 10.0, step=0.001)] = 1.0,
    strength_end: Annotated[float, Range(0.0, 10.0, step=0.001)] = 1.0,
    interpolation: Annotated[str, Options(list(CURVES))],
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
    keyframes_count: Annotated[int, Range(2, 100, step=1)] = 5,
    print_keyframes: Annotated[bool, Tooltip("Write them to the log.")] = False,
    prev_hook_kf: Keyframes | None = None,
) -> Keyframes:
    """Keyframes from one strength to another along a curve, evenly over a part of the way."""
    share = np.linspace(0, 1, keyframes_count, dtype=np.float32)
    span = np.float32(strength_end - strength_start)
    strengths = span * CURVES[interpolation](share) + np.float32(strength_start)
    starts = torch.linspace(start_percent, end_percent, keyframes_count)
    return _spread(starts.tolist(), strengths.tolist(), print_keyframes, prev_hook_kf)


@node(
    "CreateHookKeyframesFromFloats",
    category=TIMING,
    display_name="Create Hook Keyframes From Floats",
    experimental=True,
    outputs=KEYFRAMES,
)
def create_hook_keyframes_from_floats(
    *,
    floats_strength: Annotated[
        Any, Socket("FLOATS"), Extra({"default": -1, "min": -1, "step": 0.001, "forceInput": True})
    ],
    start_percent: Percent = 0.0,
    end_percent: Percent = 1.0,
    print_keyframes: Annotated[bool, Tooltip("Write them to the log.")] = False,
    prev_hook_kf: Keyframes | None = None,
) -> Keyframes:
    """A keyframe for each of some strengths, evenly over a part of the way."""
    given = [floats_strength] if isinstance(floats_strength, int | float) else floats_strength
    try:
        strengths = [float(strength) for strength in given]
    except (TypeError, ValueError) as error:
        raise BadValue("floats_strength", floats_strength, "a number, or several") from error
    starts = torch.linspace(start_percent, end_percent, len(strengths)).tolist()
    return _spread(starts, strengths, print_keyframes, prev_hook_kf)


@node("SetHookKeyframes", category=TIMING, display_name="Set Hook Keyframes", experimental=True)
def set_hook_keyframes(*, hooks: Hooks, hook_kf: Keyframes | None = None) -> Hooks:
    """The same adapters under these keyframes."""
    return hooks if hook_kf is None else tuple(hook.with_keyframes(hook_kf) for hook in hooks)


@node("CombineHooks2", category=COMBINING, display_name="Combine Hooks [2]", experimental=True)
def combine_hooks_2(*, hooks_A: Hooks | None = None, hooks_B: Hooks | None = None) -> Hooks:
    """The adapters of both."""
    return _all(hooks_A, hooks_B)


@node("CombineHooks4", category=COMBINING, display_name="Combine Hooks [4]", experimental=True)
def combine_hooks_4(
    *,
    hooks_A: Hooks | None = None,
    hooks_B: Hooks | None = None,
    hooks_C: Hooks | None = None,
    hooks_D: Hooks | None = None,
) -> Hooks:
    """The adapters of up to four."""
    return _all(hooks_A, hooks_B, hooks_C, hooks_D)


@node("CombineHooks8", category=COMBINING, display_name="Combine Hooks [8]", experimental=True)
def combine_hooks_8(
    *,
    hooks_A: Hooks | None = None,
    hooks_B: Hooks | None = None,
    hooks_C: Hooks | None = None,
    hooks_D: Hooks | None = None,
    hooks_E: Hooks | None = None,
    hooks_F: Hooks | None = None,
    hooks_G: Hooks | None = None,
    hooks_H: Hooks | None = None,
) -> Hooks:
    """The adapters of up to eight."""
    return _all(hooks_A, hooks_B, hooks_C, hooks_D, hooks_E, hooks_F, hooks_G, hooks_H)


@node("SetClipHooks", category="advanced/hooks/clip", display_name="Set CLIP Hooks", experimental=True)
def set_clip_hooks(
    *,
    clip: Clip,
    apply_to_conds: Annotated[bool, Tooltip("Whether what it encodes carries the hooks.")] = True,
    schedule_clip: Annotated[bool, Tooltip("Whether keyframes count for the encoders too.")] = False,
    hooks: Hooks | None = None,
) -> Clip:
    """Text encoders with the hooks' adapters."""
    encoders = present(clip, "clip", NO_CLIP)
    return encoders if hooks is None else encoders.with_hooks(hooks, apply_to_conds, schedule_clip)


def _all(*groups: tuple[Hook, ...] | None) -> tuple[Hook, ...]:
    return tuple(hook for group in groups for hook in group or ())


def _spread(
    starts: list[float], strengths: list[float], is_told: bool, before: tuple[Keyframe, ...] | None
) -> tuple[Keyframe, ...]:
    made = [
        Keyframe(start, strength, guarantee_steps=int(place == 0))
        for place, (start, strength) in enumerate(zip(starts, strengths, strict=True))
    ]
    if is_told:
        logger.info("keyframes: %s", ", ".join(f"{one.start_percent:.3f}: {one.strength:.3f}" for one in made))
    return sorted_keyframes(before or (), made)


NODES = (
    create_hook_lora,
    create_hook_lora_model_only,
    create_hook_model_as_lora,
    create_hook_model_as_lora_model_only,
    create_hook_keyframe,
    create_hook_keyframes_interpolated,
    create_hook_keyframes_from_floats,
    set_hook_keyframes,
    combine_hooks_2,
    combine_hooks_4,
    combine_hooks_8,
    set_clip_hooks,
)
