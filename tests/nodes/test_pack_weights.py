"""Weights, text encoders and autoencoders in packs' hands: what a pack does to them is what our own nodes do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.compose.shims import loading
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models.load import Checkpoint, load_checkpoint
from sigmagraph.engine.models.merge import MergeShares, merged_models, towards
from sigmagraph.nodes.support.borders import border
from sigmagraph.nodes.support.packs.clips import PackClip
from sigmagraph.nodes.support.packs.models import ModelPatcher, model_of
from sigmagraph.nodes.support.packs.weights import adapter_of
from tests.serving import CHECKOUT

CROSS = border().translations
FIRST = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
OURS = FIRST.removeprefix("diffusion_model.")


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return load_checkpoint(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors")


def weight(model: Any, name: str = OURS) -> Tensor:
    read: Tensor = model.recipe.weights[name].read().float()
    return read


def adapter(demo: Checkpoint) -> dict[str, Tensor]:
    """Low-rank changes of one query projection, in diffusers' and in kohya's names, and of a text encoder."""
    generator, width = torch.Generator().manual_seed(1), demo.model.spec.shape.width
    rows = next(iter(demo.clip.encoders.values())).width if demo.clip is not None else width
    shapes = {
        "transformer.transformer_blocks.0.attn.to_q": width,
        "lora_unet_joint_blocks_1_x_block_mlp_fc1": None,
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": rows,
    }
    made: dict[str, Tensor] = {}
    for base, size in shapes.items():
        out, inner = (size, size) if size else demo.model.recipe.base["joint_blocks.1.x_block.mlp.fc1.weight"].shape
        made[f"{base}.lora_up.weight"] = torch.randn(out, 2, generator=generator)
        made[f"{base}.lora_down.weight"] = torch.randn(2, inner, generator=generator)
    return made


def test_differences_and_shares_of_a_weight_are_added(demo: Checkpoint) -> None:
    before = weight(demo.model)
    delta = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    patcher = ModelPatcher(demo.model)
    changed = patcher.clone()
    assert changed.add_patches({FIRST: ("diff", (delta,)), "diffusion_model.none": (delta,)}, 0.5, 0.75) == [FIRST]
    torch.testing.assert_close(weight(model_of(changed)), before * 0.75 + 0.5 * delta)
    assert list(changed.patches) == [FIRST]
    assert torch.equal(weight(model_of(patcher)), before)
    rows = before.shape[0] // 3
    part = patcher.clone()
    part.add_patches({(FIRST, (0, rows, rows)): (delta[:rows],)})
    expected = before.clone()
    expected[rows : 2 * rows] += delta[:rows]
    torch.testing.assert_close(weight(model_of(part)), expected)


def test_an_adapter_by_names_of_weights_is_the_adapter_itself(demo: Checkpoint) -> None:
    tensors = adapter(demo)
    own = demo.model.with_adapter(adapter_of(tensors), 0.8)
    patcher = ModelPatcher(demo.model)
    keys = loading.model_lora_keys_unet(patcher.model, {})
    patcher.add_patches(loading.load_lora(tensors, keys, log_missing=False), 0.8)
    for name in (OURS, "joint_blocks.1.x_block.mlp.fc1.weight"):
        assert not torch.equal(weight(own, name), weight(demo.model, name))
        torch.testing.assert_close(weight(model_of(patcher), name), weight(own, name), atol=0, rtol=0)


def test_an_adapter_for_both_changes_both_and_only_the_copies(demo: Checkpoint) -> None:
    tensors = adapter(demo)
    model, clip = CROSS["MODEL"].out(demo.model), CROSS["CLIP"].out(demo.clip)
    patched, encoders = loading.load_lora_for_models(model, clip, tensors, 0.8, 0.5)
    own = demo.model.with_adapter(adapter_of(tensors), 0.8)
    assert torch.equal(weight(model_of(patched)), weight(own))
    assert demo.clip is not None
    expected = demo.clip.with_adapter(adapter_of(tensors), 0.5).encode("a boat").context
    found = CROSS["CLIP"].back(encoders).encode("a boat").context
    assert torch.equal(found, expected)
    assert not torch.equal(found, CROSS["CLIP"].back(clip).encode("a boat").context)
    by_name = clip.clone()
    by_name.add_patches(loading.load_lora(tensors, loading.model_lora_keys_clip(clip.cond_stage_model), False), 0.5)
    assert torch.equal(by_name.encode("a boat"), expected)


def test_weights_of_another_model_are_merged_by_name(demo: Checkpoint) -> None:
    other = demo.model.with_adapter(adapter_of(adapter(demo)), 1.0)
    merged = ModelPatcher(demo.model)
    for name, patch in ModelPatcher(other).get_key_patches("diffusion_model.").items():
        merged.add_patches({name: patch}, 0.25, 0.75)
    expected = merged_models(demo.model, other, MergeShares(towards(0.75)))
    for name in (OURS, "x_embedder.proj.weight"):
        torch.testing.assert_close(weight(model_of(merged), name), weight(expected, name), atol=1e-6, rtol=1e-6)


def test_what_is_no_patch_is_refused_by_name(demo: Checkpoint) -> None:
    patcher = ModelPatcher(demo.model)
    with pytest.raises(BadValue, match=r"a patch of diffusion_model\..*: 'glora'"):
        patcher.add_patches({FIRST: ("glora", (1, 2))})
    with pytest.raises(BadValue, match="rows of a weight"):
        patcher.add_patches({(FIRST, (1, 0, 8)): (torch.zeros(1),)})
    with pytest.raises(BadValue, match="an autoencoder that a loader of this engine gave, or the tensors"):
        loading.PackVae(sd={})


def test_a_prompt_becomes_tokens_and_these_its_encoding(demo: Checkpoint) -> None:
    clip = CROSS["CLIP"].out(demo.clip)
    assert CROSS["CLIP"].back(clip) is demo.clip is not None
    text = "a (red:1.3) boat"
    tokens, expected = clip.tokenize(text), demo.clip.encode(text)
    assert set(tokens) <= {"l", "g", "t5xxl"}
    context, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    assert torch.equal(context, expected.context)
    assert torch.equal(pooled, expected.pooled)
    assert torch.equal(clip.encode_from_tokens(clip.tokenize(text, return_word_ids=True)), expected.context)
    [[again, extra]] = clip.encode_from_tokens_scheduled(tokens, add_dict={"mine": 1})
    assert torch.equal(again, expected.context)
    assert extra["mine"] == 1
    flat = {name: [[(token, 1.0) for token, _ in row] for row in rows] for name, rows in tokens.items()}
    assert torch.equal(clip.encode_from_tokens(flat), demo.clip.encode("a (red:1.0) boat").context)
    shallow = clip.clone()
    shallow.clip_layer(-2)
    assert torch.equal(shallow.encode(text), demo.clip.with_last_layer(-2).encode(text).context)
    assert torch.equal(clip.encode(text), expected.context)
    with pytest.raises(BadValue, match="lists of \\(id, weight\\) under l, g, t5xxl"):
        clip.encode_from_tokens({"clip_l": []})


def test_pictures_become_latents_and_back_as_our_autoencoder_has_it(demo: Checkpoint) -> None:
    vae = CROSS["VAE"].out(demo.vae)
    assert demo.vae is not None
    image = torch.rand(1, 70, 64, 4, generator=torch.Generator().manual_seed(3))
    latent = demo.vae.encode(image[..., :3])
    assert torch.equal(vae.encode(image), latent)
    assert torch.equal(vae.decode(latent), demo.vae.decode(latent))
    assert vae.vae_encode_crop_pixels(image).shape == (1, 64, 64, 4)
    torch.testing.assert_close(vae.decode_tiled(latent, tile_x=64), demo.vae.decode(latent))
    assert CROSS["VAE"].back(vae) is demo.vae


def test_files_load_as_values_of_ours(tmp_path: Path) -> None:
    load = loading.names(lambda clip: clip)["comfy.sd"]["load_checkpoint_guess_config"]
    model, clip, vae, nothing = load(str(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors"))
    assert nothing is None
    assert isinstance(model, ModelPatcher)
    assert isinstance(vae, loading.PackVae)
    assert isinstance(clip, loading.PackClip)


def test_weights_are_read_by_name_and_scaled_by_it(tiny_checkpoint: Path) -> None:
    """As packs weaken attention: nothing is added, and so much of the weight is left."""
    parts = load_checkpoint(tiny_checkpoint)
    patcher = ModelPatcher(parts.model).clone()
    name = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    before = patcher.model_state_dict()[name]
    assert patcher.add_patches({name: (None,)}, 0.0, 0.5) == [name]
    some = patcher.model_state_dict("diffusion_model.joint_blocks.0")
    whole = patcher.state_dict_for_saving({"vae.x": before})
    assert {"text_encoders.vae.x", f"model.{name}"} <= whole.keys()
    for found in (some[name], whole[f"model.{name}"]):
        torch.testing.assert_close(found.float(), before.float() / 2)
    assert parts.clip is not None
    clip = PackClip(parts.clip).clone()
    keys = [key for key in clip.patcher.model_state_dict() if "self_attn" in key and "q_proj.weight" in key]
    assert {key.split(".")[0] for key in keys} == {"clip_l", "clip_g"}
    first = clip.patcher.model_state_dict()[keys[0]].float()
    assert clip.add_patches({keys[0]: (None,)}, 0.0, 2.0) == [keys[0]]
    torch.testing.assert_close(clip.patcher.model_state_dict()[keys[0]].float(), first * 2)
    assert not torch.equal(clip.encode("a boat"), PackClip(parts.clip).encode("a boat"))
