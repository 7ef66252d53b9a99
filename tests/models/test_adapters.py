"""Adapters in every key style: merged weights and outputs against ComfyUI's, laws of merging, clear refusals."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import TensorMismatch, UnknownModel
from sigmagraph.engine.models import Adapter, Checkpoint, Conditioning, load_adapter
from sigmagraph.engine.models.files.adapter_keys import mmdit_keys
from sigmagraph.engine.models.files.read import FileSlice
from tests.models.conftest import Arrays, Unpack

STYLES = ["kohya", "diffusers", "peft", "onetrainer", "lycoris", "generic_dora_diff"]
STRENGTH = 0.8


def delta_dot_probe(changed: Tensor, original: Tensor) -> Tensor:
    """The fingerprint of a change: each row of (changed - original) times cos(0, 1, 2, ...)."""
    rows = (changed - original).reshape(changed.shape[0], -1)
    return rows @ torch.arange(rows.shape[1]).float().cos()


@pytest.mark.parametrize("style", STYLES)
def test_an_adapter_changes_exactly_the_recorded_weights(
    checkpoint: Checkpoint, unpack: Unpack, arrays: Arrays, style: str
) -> None:
    base = checkpoint.model
    twin = base.with_adapter(load_adapter(unpack(f"lora_{style}.safetensors")), STRENGTH)
    changed = twin.network.state_dict()
    probes = arrays("lora")[f"lora_{style}/delta_dot_probe"]
    for name, original in base.network.state_dict().items():
        if name in probes:
            torch.testing.assert_close(delta_dot_probe(changed[name], original), probes[name], rtol=1e-5, atol=1e-4)
        else:
            assert changed[name].data_ptr() == original.data_ptr(), f"{name} is shared"


@pytest.mark.parametrize("style", STYLES)
def test_a_model_with_an_adapter_gives_the_recorded_velocity(
    checkpoint: Checkpoint, unpack: Unpack, arrays: Arrays, style: str
) -> None:
    io = arrays("lora")
    model = checkpoint.model.with_adapter(load_adapter(unpack(f"lora_{style}.safetensors")), STRENGTH)
    inputs = io[""]
    with torch.no_grad():
        velocity = model.network(inputs["x"], inputs["t"], inputs["y"], inputs["context"])
        untouched = checkpoint.model.network(inputs["x"], inputs["t"], inputs["y"], inputs["context"])
    torch.testing.assert_close(velocity, io[f"lora_{style}"]["out"], rtol=0, atol=1e-4)
    torch.testing.assert_close(untouched, inputs["out_without_lora"], rtol=0, atol=1e-4)


def adapter_of(folder: Path, tensors: Mapping[str, Tensor]) -> Adapter:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter.safetensors")
    return load_adapter(folder / "adapter.safetensors")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


KEY = "diffusion_model.joint_blocks.0.x_block.mlp.fc2"
WEIGHT = "joint_blocks.0.x_block.mlp.fc2.weight"


@pytest.mark.parametrize(
    ("up", "down"),
    [
        (".lora_up.weight", ".lora_down.weight"),
        ("_lora.up.weight", "_lora.down.weight"),
        (".lora.up.weight", ".lora.down.weight"),
        (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
        (".lora_B.weight", ".lora_A.weight"),
        (".lora_B", ".lora_A"),
        (".lora_B.default.weight", ".lora_A.default.weight"),
    ],
)
def test_every_suffix_of_the_two_factors_means_the_same(
    tmp_path: Path, checkpoint: Checkpoint, up: str, down: str
) -> None:
    left, right = random(128, 2), random(2, 512, seed=1)
    adapter = adapter_of(tmp_path, {KEY + up: left, KEY + down: right})
    original = checkpoint.model.network.state_dict()[WEIGHT]
    changed = checkpoint.model.with_adapter(adapter, 0.5).network.state_dict()[WEIGHT]
    torch.testing.assert_close(changed, original + 0.5 * left @ right)


@pytest.mark.parametrize(
    "base",
    [
        "lora_unet_joint_blocks_1_x_block_attn_proj",
        "diffusion_model.joint_blocks.1.x_block.attn.proj",
        "transformer.transformer_blocks.1.attn.to_out.0",
        "base_model.model.transformer_blocks.1.attn.to_out.0",
        "transformer_blocks.1.attn.to_out.0",
        "lora_transformer_transformer_blocks_1_attn_to_out_0",
        "lycoris_transformer_blocks_1_attn_to_out_0",
    ],
)
def test_every_style_of_key_means_the_same_weight(checkpoint: Checkpoint, base: str) -> None:
    slot = mmdit_keys(checkpoint.model.network.state_dict(), 2)[base]
    assert (slot.name, slot.parts, slot.is_swapped) == ("joint_blocks.1.x_block.attn.proj", 1, False)


def test_opposite_strengths_cancel_and_order_is_kept(checkpoint: Checkpoint, unpack: Unpack) -> None:
    adapter = load_adapter(unpack("lora_kohya.safetensors"))
    twice = checkpoint.model.with_adapter(adapter, 0.7).with_adapter(adapter, -0.7).network.state_dict()
    for name, original in checkpoint.model.network.state_dict().items():
        torch.testing.assert_close(twice[name], original, rtol=0, atol=1e-5)


def test_strength_zero_and_adapters_for_other_networks_leave_the_value_as_it_is(
    tmp_path: Path, checkpoint: Checkpoint, unpack: Unpack
) -> None:
    assert checkpoint.clip is not None
    adapter = load_adapter(unpack("lora_kohya.safetensors"))
    assert checkpoint.model.with_adapter(adapter, 0.0) is checkpoint.model
    assert checkpoint.clip.with_adapter(adapter, 1.0) is checkpoint.clip
    foreign = adapter_of(tmp_path, {"lora_unet_nowhere.lora_up.weight": random(2, 2)})
    assert checkpoint.model.with_adapter(foreign, 1.0) is checkpoint.model


def test_the_base_model_predicts_as_before_once_an_adapter_was_merged(checkpoint: Checkpoint, unpack: Unpack) -> None:
    state, entry = random(1, 16, 4, 4), Conditioning(random(1, 5, 96), random(1, 64))
    before = checkpoint.model.predict(state, 0.5, [entry])[0]
    patched = checkpoint.model.with_adapter(load_adapter(unpack("lora_peft.safetensors")), 1.0)
    assert not torch.allclose(patched.predict(state, 0.5, [entry])[0], before)
    assert torch.equal(checkpoint.model.predict(state, 0.5, [entry])[0], before)


def test_a_difference_and_a_replacement_of_a_bare_parameter_are_applied(tmp_path: Path, checkpoint: Checkpoint) -> None:
    difference = random(1, 144, 128)
    adapter = adapter_of(
        tmp_path, {"diffusion_model.pos_embed.diff": difference, f"{KEY}.set_weight": torch.ones(128, 512)}
    )
    original = checkpoint.model.network.state_dict()
    changed = checkpoint.model.with_adapter(adapter, 0.25).network.state_dict()
    torch.testing.assert_close(changed["pos_embed"], original["pos_embed"] + 0.25 * difference)
    assert torch.equal(changed[WEIGHT], torch.ones(128, 512))


def test_dora_with_a_norm_per_input_column_measures_the_changed_weight(tmp_path: Path, checkpoint: Checkpoint) -> None:
    left, right, scale = random(128, 2), random(2, 512, seed=1), random(1, 512, seed=2).abs()
    tensors = {f"{KEY}.lora_up.weight": left, f"{KEY}.lora_down.weight": right, f"{KEY}.dora_scale": scale}
    changed = checkpoint.model.with_adapter(adapter_of(tmp_path, tensors), 1.0).network.state_dict()[WEIGHT]
    torch.testing.assert_close(changed.norm(dim=0, keepdim=True), scale, rtol=1e-4, atol=1e-4)


def test_a_tucker_core_stands_between_the_factors_of_a_convolution(tmp_path: Path, checkpoint: Checkpoint) -> None:
    base = "lora_unet_x_embedder_proj"
    up, core, down = random(128, 3, 1, 1), random(3, 4, 2, 2, seed=1), random(4, 16, 1, 1, seed=2)
    tensors = {f"{base}.lora_up.weight": up, f"{base}.lora_mid.weight": core, f"{base}.lora_down.weight": down}
    original = checkpoint.model.network.state_dict()["x_embedder.proj.weight"]
    changed = checkpoint.model.with_adapter(adapter_of(tmp_path, tensors), 1.0).network.state_dict()
    expected = torch.zeros(128, 16, 2, 2)
    for row in range(2):
        for column in range(2):
            expected[..., row, column] = up[..., 0, 0] @ core[..., row, column] @ down[..., 0, 0]
    torch.testing.assert_close(changed["x_embedder.proj.weight"] - original, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("base", "encoder", "parameter"),
    [
        (
            "lora_te1_text_model_encoder_layers_1_self_attn_q_proj",
            "clip_l",
            "encoder.layers.1.self_attn.q_proj.weight",
        ),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "clip_g", "encoder.layers.0.mlp.fc1.weight"),
        (
            "text_encoders.t5xxl.transformer.encoder.block.1.layer.0.SelfAttention.o",
            "t5xxl",
            "encoder.block.1.layer.0.SelfAttention.o.weight",
        ),
        (
            "lora_te3_encoder_block_0_layer_1_DenseReluDense_wo",
            "t5xxl",
            "encoder.block.0.layer.1.DenseReluDense.wo.weight",
        ),
    ],
)
def test_text_encoders_take_their_share_of_an_adapter(
    tmp_path: Path, checkpoint: Checkpoint, base: str, encoder: str, parameter: str
) -> None:
    assert checkpoint.clip is not None
    original = checkpoint.clip.encoders[encoder].recipe.network.state_dict()[parameter]
    up, down = random(original.shape[0], 2), random(2, original.shape[1], seed=1)
    tensors = {f"{base}.lora_up.weight": up, f"{base}.lora_down.weight": down, f"{base}.alpha": torch.tensor(1.0)}
    patched = checkpoint.clip.with_adapter(adapter_of(tmp_path, tensors), 0.5).patched
    torch.testing.assert_close(
        patched[encoder].recipe.network.state_dict()[parameter], original + 0.5 * 0.5 * up @ down
    )
    others = set(patched) - {encoder}
    assert all(patched[name] is checkpoint.clip.encoders[name] for name in others)
    ids = torch.tensor([[254, 5, 9, 255, 0, 0]])
    assert not torch.equal(patched[encoder].encode(ids).hidden, checkpoint.clip.encoders[encoder].encode(ids).hidden)


def test_an_adapter_of_rank_nought_is_an_error_of_ours(tmp_path: Path, checkpoint: Checkpoint) -> None:
    rows, columns = checkpoint.model.network.joint_blocks[0].x_block.mlp.fc2.weight.shape
    tensors = {f"{KEY}.lora_up.weight": random(rows, 0), f"{KEY}.lora_down.weight": random(0, columns)}
    tensors[f"{KEY}.alpha"] = torch.tensor(1.0)
    model = checkpoint.model.with_adapter(adapter_of(tmp_path, tensors), 1.0)
    with pytest.raises(TensorMismatch, match=r"does not fit joint_blocks\.0\.x_block\.mlp\.fc2\.weight"):
        _ = model.network


def test_an_adapter_of_another_size_says_which_weight_it_does_not_fit(tmp_path: Path, checkpoint: Checkpoint) -> None:
    tensors = {f"{KEY}.lora_up.weight": random(64, 2), f"{KEY}.lora_down.weight": random(2, 64)}
    model = checkpoint.model.with_adapter(adapter_of(tmp_path, tensors), 1.0)
    with pytest.raises(TensorMismatch, match=r"mlp\.fc2 does not fit joint_blocks\.0\.x_block\.mlp\.fc2\.weight"):
        model.predict(random(1, 16, 4, 4), 0.5, [Conditioning(random(1, 5, 96), random(1, 64))])


def test_a_file_that_is_no_adapter_is_refused_and_unknown_keys_are_kept_for_the_report(
    tmp_path: Path, unpack: Unpack
) -> None:
    with pytest.raises(UnknownModel, match="a LoRA file was expected"):
        load_adapter(unpack("mmdit_c.safetensors"))
    tensors = load_file(unpack("lora_peft.safetensors")) | {"odd.key": torch.zeros(1)}
    assert adapter_of(tmp_path, tensors).unknown == ("odd.key",)


def test_tensors_that_are_not_named_as_an_adapters_are_not_read(
    unpack: Unpack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF file chosen by mistake would grow to four times its size before it is refused."""
    read = list[FileSlice]()
    monkeypatch.setattr(FileSlice, "__call__", lambda place: read.append(place) or torch.ones(1))
    with pytest.raises(UnknownModel, match="a LoRA file was expected"):
        load_adapter(unpack("mmdit_c.safetensors"))
    assert not read


def test_what_neither_model_nor_encoders_have_a_place_for_is_listed(
    tmp_path: Path, checkpoint: Checkpoint, unpack: Unpack
) -> None:
    assert checkpoint.clip is not None
    strays = {"odd.key": torch.zeros(1), "lora_unet_nowhere.lora_up.weight": torch.zeros(2, 2)}
    adapter = adapter_of(tmp_path, load_file(unpack("lora_kohya.safetensors")) | strays)
    fitted = [checkpoint.model.fitting(adapter), *checkpoint.clip.fitting(adapter).values()]
    assert adapter.unused(*fitted) == ["lora_unet_nowhere", "odd.key"]
