"""Adapters in a graph: the same as weights changed by hand, and told where they change nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import Checkpoint, Clip, Conditioning, Model, load_checkpoint
from sigmagraph.nodes import NODES

MODEL_KEY = "model.diffusion_model.joint_blocks.0.x_block.mlp.fc2.weight"
CLIP_KEY = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
BASES = {
    MODEL_KEY: "lora_unet_joint_blocks_0_x_block_mlp_fc2",
    CLIP_KEY: "lora_te1_text_model_encoder_layers_0_mlp_fc1",
}
ALPHA, RANK = 2.0, 4


@pytest.fixture(scope="module")
def factors(tiny_checkpoint: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Up [out, rank] and down [rank, in] for one weight of the model and one of an encoder."""
    generator = torch.Generator().manual_seed(3)
    with safe_open(tiny_checkpoint, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in BASES}
    return {
        key: (torch.randn(rows, RANK, generator=generator) / 4, torch.randn(RANK, columns, generator=generator) / 4)
        for key, (rows, columns) in shapes.items()
    }


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Folders:
    """A home with the adapter of `factors`, and one that fits nothing."""
    home = tmp_path_factory.mktemp("home")
    (home / "models/loras").mkdir(parents=True)
    tensors = {}
    for key, (up, down) in factors.items():
        tensors |= {f"{BASES[key]}.lora_up.weight": up, f"{BASES[key]}.lora_down.weight": down}
        tensors[f"{BASES[key]}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, home / "models/loras/both.safetensors")
    foreign = {f"lora_unet_down_blocks_0.lora_{side}.weight": torch.ones(4, 4) for side in ("up", "down")}
    save_file(foreign, home / "models/loras/foreign.safetensors")
    return Folders(home / "models", home / "input", home / "output", home / "temp")


def changed_by_hand(
    tiny_checkpoint: Path, folder: Path, factors: Mapping[str, tuple[Tensor, Tensor]], strengths: Mapping[str, float]
) -> Checkpoint:
    """The checkpoint with `strength * alpha / rank * up @ down` added to the weights in the file, in float32."""
    with safe_open(tiny_checkpoint, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tiny_checkpoint)
    for key, (up, down) in factors.items():
        tensors[key] = tensors[key].float() + strengths[key] * ALPHA / RANK * up @ down
    save_file(tensors, folder / "changed.safetensors", metadata)
    return load_checkpoint(folder / "changed.safetensors")


def conditioned(clip: Clip | None) -> Conditioning:
    result: Conditioning = NODES["CLIPTextEncode"](text="a red circle", clip=clip)
    return result


def answer(model: Model, conditioning: Conditioning) -> Tensor:
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    return model.predict(x, 0.7, [conditioning])[0]


def test_a_model_and_encoders_with_an_adapter_are_those_whose_weights_were_changed_in_the_file(
    tiny_checkpoint: Path, tmp_path: Path, services: Folders, factors: dict[str, tuple[Tensor, Tensor]]
) -> None:
    plain = load_checkpoint(tiny_checkpoint)
    strengths = {"strength_model": 0.8, "strength_clip": -0.5}
    model, clip = NODES["LoraLoader"](
        model=plain.model, clip=plain.clip, lora_name="both.safetensors", **strengths, services=services
    )
    by_hand = changed_by_hand(tiny_checkpoint, tmp_path, factors, {MODEL_KEY: 0.8, CLIP_KEY: -0.5})
    text, expected = conditioned(clip), conditioned(by_hand.clip)
    torch.testing.assert_close(text.context, expected.context, rtol=0, atol=1e-5)
    assert (text.context - conditioned(plain.clip).context).abs().max() > 0.01
    torch.testing.assert_close(answer(model, text), answer(by_hand.model, text), rtol=0, atol=2e-3)  # theirs is float16
    assert (answer(model, text) - answer(plain.model, text)).abs().max() > 0.02


def test_on_the_model_alone_the_text_part_of_a_file_is_left(tiny_checkpoint: Path, services: Folders) -> None:
    plain = load_checkpoint(tiny_checkpoint)
    given = {"model": plain.model, "lora_name": "both.safetensors", "services": services}
    alone = NODES["LoraLoaderModelOnly"](**given, strength_model=0.8)
    both, clip = NODES["LoraLoader"](**given, clip=plain.clip, strength_model=0.8, strength_clip=0.0)
    text = conditioned(plain.clip)
    assert torch.equal(conditioned(clip).context, text.context)
    assert torch.equal(answer(alone, text), answer(both, text))
    bare, nothing = NODES["LoraLoader"](**given, clip=None, strength_model=0.8, strength_clip=1.0)
    assert nothing is None
    assert torch.equal(answer(bare, text), answer(both, text))


def test_strength_zero_is_the_model_itself(tiny_checkpoint: Path, services: Folders) -> None:
    model = load_checkpoint(tiny_checkpoint).model
    given = {"model": model, "lora_name": "both.safetensors", "services": services}
    assert NODES["LoraLoaderModelOnly"](**given, strength_model=0.0) is model


@pytest.mark.parametrize("name", ["LoraLoader", "LoraLoaderModelOnly"])
def test_an_adapter_of_another_family_is_refused_by_name(tiny_checkpoint: Path, services: Folders, name: str) -> None:
    plain = load_checkpoint(tiny_checkpoint)
    given: dict[str, Any] = {"clip": plain.clip} if name == "LoraLoader" else {}
    with pytest.raises(BadValue, match="foreign.safetensors.*no place for 'lora_unet_down_blocks_0'"):
        NODES[name](model=plain.model, lora_name="foreign.safetensors", services=services, **given)


def test_the_declaration_lists_the_files_of_the_folder(services: Folders) -> None:
    declared = NODES["LoraLoader"].object_info(services)
    assert list(declared["input"]["required"]) == ["model", "clip", "lora_name", "strength_model", "strength_clip"]
    assert json.dumps(declared["input"]["required"]["lora_name"]).count("safetensors") == 2
    assert declared["output"] == ["MODEL", "CLIP"]
