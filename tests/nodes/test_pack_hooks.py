"""Hooks that packs build act as those of our own nodes, and what cannot act is refused or told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import Checkpoint
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.packs.conditioning import GuiderEntries, conditioning_of
from sigmagraph.nodes.support.packs.hooks import names
from tests.nodes.test_hooks import X, hooked, hooks, services, text, tiny

__all__ = ["services", "tiny"]  # fixtures

CROSS = border().translations
COMFY: Any = type("hooks", (), {name: staticmethod(value) for name, value in names()["comfy.hooks"].items()})


def timed_by_a_pack(tensors: Any, until: float) -> Any:
    """As prompt schedules do: full strength up to a share of the way, none from there on."""
    group = COMFY.create_hook_lora(tensors, strength_model=0.5, strength_clip=0.25)
    keyframes = COMFY.HookKeyframeGroup()
    keyframes.add(COMFY.HookKeyframe(strength=0.0, start_percent=until))
    keyframes.add(COMFY.HookKeyframe(strength=1.0, start_percent=0.0))
    group.set_keyframes_on_hooks(hook_kf=keyframes)
    return COMFY.HookGroup.combine_all_hooks([group, None])


def test_an_adapter_that_a_pack_times_predicts_as_ours(tiny: Checkpoint, services: Folders) -> None:
    tensors = load_file(Path(services.path("loras", "a.safetensors")))
    entries = COMFY.set_hooks_for_conditioning(CROSS["CONDITIONING"].out(text(2)), timed_by_a_pack(tensors, 0.5))
    given = CROSS["CONDITIONING"].back(entries)
    first = NODES["CreateHookKeyframe"](strength_mult=1.0, start_percent=0.0)
    frames = NODES["CreateHookKeyframe"](strength_mult=0.0, start_percent=0.5, prev_hook_kf=first)
    ours = NODES["SetHookKeyframes"](hooks=hooks(services, clip=0.25), hook_kf=frames)
    for sigma in (0.95, 0.3):
        (expected,) = tiny.model.predict(X, sigma, [hooked(text(2), ours)])
        (found,) = tiny.model.predict(X, sigma, [given])
        torch.testing.assert_close(found, expected)
    (hook,) = CROSS["HOOKS"].back(timed_by_a_pack(tensors, 0.5))
    assert (hook.strength_model, hook.strength_clip, hook.keyframes) == (0.5, 0.25, frames)


def test_hooks_of_ours_come_back_as_they_were_and_can_be_retimed(services: Folders) -> None:
    ours = hooks(services)
    group = CROSS["HOOKS"].out(ours)
    assert CROSS["HOOKS"].back(group)[0] is ours[0]
    frames = CROSS["HOOK_KEYFRAMES"].out(NODES["CreateHookKeyframe"](strength_mult=2.0, start_percent=0.25))
    later = group.clone()
    later.set_keyframes_on_hooks(frames)
    assert CROSS["HOOKS"].back(group)[0] is ours[0], "a clone's keyframes are its own"
    (changed,) = CROSS["HOOKS"].back(later)
    assert (changed.adapter, changed.keyframes) == (ours[0].adapter, CROSS["HOOK_KEYFRAMES"].back(frames))
    assert len(group.clone_and_combine(group)) == 1
    assert len(group.clone_and_combine(CROSS["HOOKS"].out(hooks(services)))) == 2


def test_hooks_that_a_guider_times_in_place_are_timed(services: Folders) -> None:
    """The entry is the same object, and the group in it."""
    ours = hooks(services)
    entries = GuiderEntries(hooked(text(2), ours))
    assert entries.value is not None
    frames = COMFY.HookKeyframeGroup()
    frames.add(COMFY.HookKeyframe(strength=0.0))
    entries[0]["hooks"].set_keyframes_on_hooks(frames)
    (found,) = conditioning_of(entries).hooks
    assert (found.adapter, [one.strength for one in found.keyframes]) == (ours[0].adapter, [0.0])


class Couples(COMFY.TransformerOptionsHook):  # type: ignore[misc]
    """As packs that couple attention to regions: functions for the attention of U-Nets."""

    def __init__(self, place: str = "attn2_patch") -> None:
        super().__init__(hook_scope=COMFY.EnumHookScope.HookedOnly)
        self.transformers_dict = {"patches": {place: [print]}, "regions": {"mask": 1}}


def test_a_hook_for_unets_travels_with_its_conditioning_and_changes_nothing(
    tiny: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    group = COMFY.HookGroup()
    group.add(Couples())
    entries = COMFY.set_hooks_for_conditioning(CROSS["CONDITIONING"].out(text(1)), hooks=group)
    given = CROSS["CONDITIONING"].back(entries)
    assert "Couples patches places of U-Nets" in caplog.text
    assert torch.equal(tiny.model.predict(X, 0.6, [given])[0], tiny.model.predict(X, 0.6, [text(1)])[0])
    (hook,) = CROSS["CONDITIONING"].out(given)[0][1]["hooks"].hooks
    assert isinstance(hook, Couples)
    with pytest.raises(BadValue, match=r"Couples.*conditioning alone"):
        CROSS["HOOKS"].back(group)


def test_a_hook_that_would_act_otherwise_is_refused_by_name() -> None:
    pair = CROSS["CONDITIONING"].out(text(1))
    wrapping = COMFY.WrapperHook({"wrappers": {"outer_sample": {"key": [print]}}})
    for hook, said in (
        (Couples("double_block"), "patches double_block"),
        (wrapping, "wrappers outer_sample"),
        (COMFY.Hook(), "Hook"),
    ):
        with pytest.raises(BadValue, match=said):
            CROSS["CONDITIONING"].back(COMFY.set_hooks_for_conditioning(pair, COMFY.HookGroup([hook])))
    with pytest.raises(BadValue, match="WeightHook"):
        COMFY.WeightHook(1.0, 1.0)
