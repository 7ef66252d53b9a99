"""Adapters that act for one conditioning: the same predictions as an adapter on the whole model, where they act."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import Checkpoint, Conditioning, load_checkpoint
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes import NODES

KEYS = {
    "lora_unet_joint_blocks_0_x_block_mlp_fc2": "model.diffusion_model.joint_blocks.0.x_block.mlp.fc2.weight",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1": (
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    ),
}
X = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Folders:
    home, generator, tensors = tmp_path_factory.mktemp("hooks"), torch.Generator().manual_seed(3), {}
    (home / "models/loras").mkdir(parents=True)
    with safe_open(tiny_checkpoint, "pt") as file:
        for base, key in KEYS.items():
            rows, columns = file.get_slice(key).get_shape()
            tensors[f"{base}.lora_up.weight"] = torch.randn(rows, 2, generator=generator)
            tensors[f"{base}.lora_down.weight"] = torch.randn(2, columns, generator=generator)
    save_file(tensors, home / "models/loras/a.safetensors")
    return Folders(home / "models", home, home, home)


def hooks(services: Folders, model: float = 0.5, clip: float = 0.5) -> tuple[Hook, ...]:
    made: tuple[Hook, ...] = NODES["CreateHookLora"](
        lora_name="a.safetensors", strength_model=model, strength_clip=clip, services=services
    )
    return made


def text(seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, 6, 128, generator=generator), torch.randn(1, 128, generator=generator))


def hooked(one: Conditioning, given: tuple[Hook, ...]) -> Conditioning:
    result: Conditioning = NODES["ConditioningSetProperties"](cond_NEW=one, set_cond_area="default", hooks=given)
    return result


def test_an_entry_with_a_hook_is_asked_of_the_model_with_its_adapter(tiny: Checkpoint, services: Folders) -> None:
    given, plain = hooks(services), tiny.model
    changed = plain.with_adapter(given[0].adapter, 0.5)
    negative, positive = plain.predict(X, 0.6, [text(1), hooked(text(2), given)])
    assert torch.equal(negative, plain.predict(X, 0.6, [text(1)])[0])
    torch.testing.assert_close(positive, changed.predict(X, 0.6, [text(2)])[0])
    assert not torch.allclose(positive, plain.predict(X, 0.6, [text(2)])[0], atol=1e-3)


def test_the_network_under_a_hook_is_made_once_for_all_steps(tiny_checkpoint: Path, services: Folders) -> None:
    model, given = load_checkpoint(tiny_checkpoint).model, hooks(services, model=0.3125)
    before = RESIDENCY.load_count
    for sigma in (0.9, 0.6, 0.3):
        model.predict(X, sigma, [hooked(text(2), given)])
    assert RESIDENCY.load_count == before + 1
    first = model.hooked(given, 0.1)
    frames = NODES["CreateHookKeyframesFromFloats"](floats_strength=[3.0, 2.0], start_percent=0.0, end_percent=0.5)
    timed = NODES["SetHookKeyframes"](hooks=given, hook_kf=frames)
    assert model.hooked(given, 0.1) is first
    assert model.hooked(timed, 0.9) is not model.hooked(timed, 0.1)
    assert model.hooked(given, 0.1) is not first  # of a schedule that asks for ever new ones the last two are kept


def test_hooked_and_plain_entries_of_one_conditioning_are_averaged(tiny: Checkpoint, services: Folders) -> None:
    given, plain = hooks(services), tiny.model
    (both,) = plain.predict(X, 0.6, [text(1).beside(hooked(text(2), given))])
    parts = [
        plain.predict(X, 0.6, [text(1)])[0],
        plain.with_adapter(given[0].adapter, 0.5).predict(X, 0.6, [text(2)])[0],
    ]
    torch.testing.assert_close(both, torch.stack(parts).mean(0))


def test_keyframes_change_the_strength_along_the_way(tiny: Checkpoint, services: Folders) -> None:
    first = NODES["CreateHookKeyframe"](strength_mult=0.0, start_percent=0.0)
    frames = NODES["CreateHookKeyframe"](strength_mult=2.0, start_percent=0.5, prev_hook_kf=first)
    given = NODES["SetHookKeyframes"](hooks=hooks(services), hook_kf=frames)
    level, adapter = tiny.model.parameterisation.levels.percent_to_sigma(0.5), given[0].adapter
    for sigma, strength in ((level * 1.01, 0.0), (level, 1.0), (level * 0.9, 1.0)):
        (found,) = tiny.model.predict(X, sigma, [hooked(text(2), given)])
        torch.testing.assert_close(found, tiny.model.with_adapter(adapter, strength).predict(X, sigma, [text(2)])[0])


def test_hooks_are_combined_and_timed_together(services: Folders) -> None:
    one, other = hooks(services), hooks(services, model=0.25)
    both = NODES["CombineHooks2"](hooks_A=one, hooks_B=other)
    assert both == (*one, *other)
    assert NODES["CombineHooks4"](hooks_B=one, hooks_D=other) == both
    assert NODES["CombineHooks8"](hooks_A=None, hooks_H=one) == one
    assert (
        NODES["CreateHookLora"](lora_name="a", strength_model=0, strength_clip=0, prev_hooks=one, services=services)
        == one
    )
    alone = NODES["CreateHookLoraModelOnly"](lora_name="a.safetensors", strength_model=1.0, services=services)
    assert (alone[0].strength_model, alone[0].strength_clip) == (1.0, 0.0)


def test_encoders_take_the_adapter_and_hand_the_hooks_on(tiny: Checkpoint, services: Folders) -> None:
    given = hooks(services, clip=0.7)
    assert tiny.clip is not None
    clip = NODES["SetClipHooks"](clip=tiny.clip, apply_to_conds=True, schedule_clip=False, hooks=given)
    found, expected = clip.encode("a red circle"), tiny.clip.with_adapter(given[0].adapter, 0.7).encode("a red circle")
    assert torch.equal(found.context, expected.context)
    assert found.hooks == given
    assert not torch.allclose(found.context, tiny.clip.encode("a red circle").context, atol=1e-3)
    bare = NODES["SetClipHooks"](clip=tiny.clip, apply_to_conds=False, schedule_clip=False, hooks=given)
    assert bare.encode("a").hooks == ()


def test_a_schedule_of_the_encoders_gives_an_entry_for_each_part(tiny: Checkpoint, services: Folders) -> None:
    assert tiny.clip is not None
    frames = NODES["CreateHookKeyframesFromFloats"](floats_strength=[0.0, 1.0], start_percent=0.0, end_percent=0.5)
    given = NODES["SetHookKeyframes"](hooks=hooks(services), hook_kf=frames)
    clip = NODES["SetClipHooks"](clip=tiny.clip, apply_to_conds=True, schedule_clip=True, hooks=given)
    early, late = clip.encode("a red circle").entries
    assert [(one.start, one.end) for one in (early, late)] == [(0.0, 0.5), (0.5, 1.0)]
    assert torch.equal(early.context, tiny.clip.encode("a red circle").context)
    changed = tiny.clip.with_adapter(given[0].adapter, 0.5)
    assert torch.equal(late.context, changed.encode("a red circle").context)
    assert late.hooks == given
