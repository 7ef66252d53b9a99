"""Hooks as node packs build them: `comfy.hooks`. Adapters act as those of our own nodes do.

A group holds hooks. One of weights is a hook of ours with a name; one of transformer options may change places that
only U-Nets have, which is nothing on SD3, here as in ComfyUI. What else a pack's hook would do is refused by name.
"""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.hooks import Hook, Keyframe, sorted_keyframes
from sigmagraph.nodes.support.packs.weights import adapter_of

__all__ = ["OF_UNETS", "HookGroup", "KeyframeGroup", "hooks_of", "keyframes_of", "names", "parted"]

LOG = logging.getLogger("sigmagraph.packs")
OF_UNETS = frozenset(
    (
        *(f"attn{side}{what}" for side in (1, 2) for what in ("", "_patch", "_output_patch")),
        *("input_block_patch", "input_block_patch_after_skip", "middle_block_patch", "output_block_patch"),
    )
)
"""Places in the attention and blocks of U-Nets: SD3's transformer has none, so they change nothing, here or there."""


class EnumHookType(Enum):
    """What a hook changes."""

    Weight = "weight"
    ObjectPatch = "object_patch"
    AdditionalModels = "add_models"
    TransformerOptions = "transformer_options"
    Injections = "add_injections"


class EnumHookScope(Enum):
    """Whether a hook acts for all conditionings or for those that carry it."""

    AllConditioning = "all_conditioning"
    HookedOnly = "hooked_only"


class HookKeyframe:
    """From a share of the way on, strengths are multiplied by `strength`."""

    def __init__(self, strength: float, start_percent: float = 0.0, guarantee_steps: int = 1) -> None:
        self.strength, self.start_percent, self.guarantee_steps = strength, start_percent, guarantee_steps

    def clone(self) -> "HookKeyframe":
        """Another that says the same."""
        return copy.copy(self)


class KeyframeGroup:
    """`HookKeyframeGroup`: keyframes by their beginnings."""

    def __init__(self) -> None:
        self.keyframes: list[HookKeyframe] = []

    @classmethod
    def of(cls, keyframes: Iterable[Keyframe]) -> "KeyframeGroup":
        """Keyframes of ours as a pack knows them."""
        made = cls()
        for one in keyframes:
            made.add(HookKeyframe(one.strength, one.start_percent, one.guarantee_steps))
        return made

    def add(self, keyframe: HookKeyframe) -> None:
        """One more; of equal beginnings the earlier stays first."""
        self.keyframes = sorted([*self.keyframes, keyframe], key=lambda one: one.start_percent)

    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self.keyframes

    def clone(self) -> "KeyframeGroup":
        """Another group of the same."""
        made = type(self)()
        made.keyframes = list(self.keyframes)
        return made


class PackHook:
    """`Hook`: what one changes, by a reference under which it is told from others."""

    def __init__(
        self,
        hook_type: EnumHookType | None = None,
        hook_ref: Any = None,
        hook_id: str | None = None,
        hook_keyframe: KeyframeGroup | None = None,
        hook_scope: EnumHookScope = EnumHookScope.AllConditioning,
    ) -> None:
        self.hook_type, self.hook_id, self.hook_scope = hook_type, hook_id, hook_scope
        self.hook_ref = hook_ref if hook_ref is not None else object()
        self.hook_keyframe = hook_keyframe if hook_keyframe is not None else KeyframeGroup()
        self.custom_should_register: Any = None

    def clone(self) -> Any:
        """Another that stands for the same change."""
        made = copy.copy(self)
        made.hook_keyframe = self.hook_keyframe.clone()
        return made

    def on_apply_hooks(self, model: Any, transformer_options: Any) -> None:
        """Nothing beside what is in the hook."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.hook_ref == other.hook_ref

    def __hash__(self) -> int:
        return hash(self.hook_ref)


class WeightHook(PackHook):
    """An adapter, with strengths for the diffusion model and for text encoders."""

    def __init__(self, ours: Any = None, strength_model: float = 1.0, strength_clip: float = 1.0) -> None:
        if not isinstance(ours, Hook):
            raise BadValue(
                "WeightHook", type(ours).__qualname__, "an adapter, as create_hook_lora makes one of tensors"
            )
        super().__init__(EnumHookType.Weight, ours.adapter, hook_keyframe=KeyframeGroup.of(ours.keyframes))
        self.adapter, self.came = ours.adapter, ours
        self.strength_model, self.strength_clip = ours.strength_model, ours.strength_clip

    def value(self) -> Hook:
        """The hook of ours; the one it came from where nothing was changed."""
        made = Hook(self.adapter, self.strength_model, self.strength_clip, keyframes_of(self.hook_keyframe))
        parts = ("adapter", "strength_model", "strength_clip", "keyframes")
        is_same = all(getattr(made, part) == getattr(self.came, part) for part in parts)
        return self.came if is_same else made


class TransformerOptionsHook(PackHook):
    """Options for within the network, for as long as the conditioning is asked for."""

    def __init__(
        self,
        transformers_dict: Mapping[str, Any] | None = None,
        hook_scope: EnumHookScope = EnumHookScope.AllConditioning,
    ) -> None:
        super().__init__(EnumHookType.TransformerOptions, hook_scope=hook_scope)
        self.transformers_dict = dict(transformers_dict or {})

    def acting(self) -> list[str]:
        """What it would change in the network of this family."""
        found = [f"{kind} {place}" for kind in ("patches", "patches_replace") for place in self._places(kind)]
        return found + [
            f"wrappers {place}" for place, what in self.transformers_dict.get("wrappers", {}).items() if what
        ]

    def _places(self, kind: str) -> list[str]:
        given = self.transformers_dict.get(kind, {})
        return [str(place) for place, what in given.items() if what and place not in OF_UNETS]


class HookGroup:
    """Hooks in the order in which they came, each once."""

    def __init__(self, hooks: Iterable[PackHook] = ()) -> None:
        self.hooks: list[PackHook] = list(hooks)

    @classmethod
    def of(cls, hooks: Iterable[Hook], others: Iterable[PackHook] = ()) -> "HookGroup":
        """Hooks of ours, and those of packs that go with them."""
        return cls([*map(WeightHook, hooks), *others])

    def __len__(self) -> int:
        return len(self.hooks)

    def __iter__(self) -> Iterator[PackHook]:
        return iter(self.hooks)

    def add(self, hook: PackHook) -> None:
        """One more, if it is not in it."""
        if hook not in self.hooks:
            self.hooks.append(hook)

    def remove(self, hook: PackHook) -> None:
        """One less."""
        self.hooks = [one for one in self.hooks if one != hook]

    def contains(self, hook: PackHook) -> bool:
        """Whether it is in it."""
        return hook in self.hooks

    def get_type(self, hook_type: EnumHookType) -> list[PackHook]:
        """Those of a kind."""
        return [hook for hook in self.hooks if hook.hook_type is hook_type]

    def clone(self) -> "HookGroup":
        """Another group, of clones."""
        return type(self)([hook.clone() for hook in self.hooks])

    def clone_and_combine(self, other: "HookGroup | None") -> "HookGroup":
        """Another group, with what the other has."""
        made = self.clone()
        for hook in other or ():
            made.add(hook.clone())
        return made

    def set_keyframes_on_hooks(self, hook_kf: KeyframeGroup | None) -> None:
        """The keyframes of all from now on."""
        for hook in self.hooks:
            hook.hook_keyframe = hook_kf.clone() if hook_kf is not None else KeyframeGroup()

    @staticmethod
    def combine_all_hooks(hooks_list: Sequence["HookGroup | None"], require_count: int = 0) -> "HookGroup | None":
        """One group of all; None where there is none, or fewer than that."""
        given = [group for group in hooks_list if group is not None]
        if not given or len(given) < require_count:
            return None
        made = given[0].clone()
        for group in given[1:]:
            made = made.clone_and_combine(group)
        return made


def create_hook_lora(lora: Mapping[str, Tensor], strength_model: float, strength_clip: float) -> HookGroup:
    """A group of one adapter, of tensors that a pack read."""
    return HookGroup([WeightHook(Hook(adapter_of(lora), strength_model, strength_clip))])


def set_hooks_for_conditioning(
    cond: Sequence[Any], hooks: HookGroup | None, append_hooks: bool = True, cache: Any = None
) -> list[Any]:
    """The entries with the hooks, beside those they have or in their place."""
    if hooks is None:
        return list(cond)
    made = []
    for context, extra in cond:
        before = extra.get("hooks") if append_hooks else None
        together = before.clone_and_combine(hooks) if before is not None else hooks
        made.append([context, {**extra, "hooks": together}])
    return made


def keyframes_of(group: Any) -> tuple[Keyframe, ...]:
    """Keyframes of ours."""
    if not isinstance(group, KeyframeGroup):
        return tuple(group or ())
    return sorted_keyframes(Keyframe(one.start_percent, one.strength, one.guarantee_steps) for one in group.keyframes)


def parted(group: Any) -> tuple[tuple[Hook, ...], tuple[PackHook, ...]]:
    """Hooks of ours, and those of a pack that change nothing on this family. Raises `BadValue` for others."""
    given = list(group or ())
    ours = tuple(hook.value() if isinstance(hook, WeightHook) else hook for hook in given if _is_ours(hook))
    idle = tuple(hook for hook in given if not _is_ours(hook))
    for hook in idle:
        acts = hook.acting() if isinstance(hook, TransformerOptionsHook) else ["more than weights and options"]
        if acts:
            allowed = "hooks of weights, or of patches in U-Nets' places, which change nothing here"
            raise BadValue(f"hooks: {type(hook).__qualname__}", ", ".join(acts), allowed)
        LOG.warning("%s patches places of U-Nets: it changes nothing on SD3, as in ComfyUI", type(hook).__qualname__)
    return ours, idle


def hooks_of(group: Any) -> Any:
    """Hooks of ours, as they travel from node to node."""
    if not isinstance(group, HookGroup):
        return group
    ours, idle = parted(group)
    if idle:
        raise BadValue("HOOKS", type(idle[0]).__qualname__, "a hook of weights; others travel in a conditioning alone")
    return ours


def _is_ours(hook: Any) -> bool:
    return isinstance(hook, WeightHook | Hook)


def names() -> dict[str, dict[str, Any]]:
    """The module of hooks."""
    return {
        "comfy.hooks": {
            "EnumHookScope": EnumHookScope,
            "EnumHookType": EnumHookType,
            "Hook": PackHook,
            "HookGroup": HookGroup,
            "HookKeyframe": HookKeyframe,
            "HookKeyframeGroup": KeyframeGroup,
            "TransformerOptionsHook": TransformerOptionsHook,
            "WeightHook": WeightHook,
            "WrapperHook": TransformerOptionsHook,
            "create_hook_lora": create_hook_lora,
            "set_hooks_for_conditioning": set_hooks_for_conditioning,
        }
    }
