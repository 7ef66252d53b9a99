"""What `sigmagraph models` says of adapters: kind, rank, what they change, for which model, their words."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.errors import UnknownModel
from sigmagraph.engine.models.files.adapter_summary import AdapterSummary, summarise_adapter
from tests.models.conftest import Unpack

PUBLISHED = "SD3's architecture, width 128"
STYLES = {
    "kohya": ("LoRA", "3", 30, PUBLISHED),
    "diffusers": ("LoRA", "4", 26, PUBLISHED),
    "peft": ("LoRA", "2", 6, PUBLISHED),
    "onetrainer": ("LoRA", "2", 6, PUBLISHED),
    "lycoris": ("LoHa and LoKr", "2", 12, PUBLISHED),
    "generic_dora_diff": ("DoRA and full differences", "2", 6, PUBLISHED),
}


def adapter(folder: Path, tensors: dict[str, Tensor], **metadata: str) -> AdapterSummary:
    save_file(tensors, folder / "x.safetensors", {name.replace("__", "."): text for name, text in metadata.items()})
    return summarise_adapter(folder / "x.safetensors")


def pair(base: str, width: int, rank: int) -> dict[str, Tensor]:
    return {f"{base}.lora_A.weight": torch.zeros(rank, width), f"{base}.lora_B.weight": torch.zeros(8, rank)}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_keys_is_told(unpack: Unpack, style: str) -> None:
    found = summarise_adapter(unpack(f"lora_{style}.safetensors"))
    assert (found.kind, found.rank, found.tensors, found.family) == STYLES[style]
    assert found.changes == ("the diffusion model",)
    assert found.precision == "float32"


@pytest.mark.parametrize(
    ("base", "width", "family"),
    [
        ("transformer.transformer_blocks.3.attn.to_q", 2432, "SD3.5 Large"),
        ("transformer.transformer_blocks.3.attn.to_q", 1536, "SD3 Medium"),
        ("transformer.transformer_blocks.3.attn2.to_q", 1536, "SD3.5 Medium"),
        ("lora_unet_joint_blocks_3_x_block_attn2_qkv", 1536, "SD3.5 Medium"),
        ("transformer.transformer_blocks.3.norm1_context.linear", 1536, "SD3"),
        ("transformer.single_transformer_blocks.3.attn.to_q", 3072, "FLUX"),
        ("lora_unet_double_blocks_3_img_attn_qkv", 3072, "FLUX"),
        ("lora_unet_down_blocks_1_attentions_0_proj_in", 320, "a UNet (SD 1, 2 or XL)"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, ""),
        ("something.else", 8, ""),
    ],
)
def test_the_model_is_told_by_names_and_width(tmp_path: Path, base: str, width: int, family: str) -> None:
    assert adapter(tmp_path, pair(base, width, 4)).family == family


def test_what_it_changes_and_several_ranks(tmp_path: Path) -> None:
    tensors = {
        **pair("transformer.transformer_blocks.0.attn.to_q", 1536, 4),
        **pair("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", 1280, 16),
        **pair("text_encoder.text_model.encoder.layers.0.mlp.fc1", 768, 8),
    }
    found = adapter(tmp_path, tensors)
    assert (found.rank, found.changes) == ("4 to 16", ("the diffusion model", "clip_l", "clip_g"))
    assert found.holds == "LoRA of rank 4 to 16 for the diffusion model, clip_l, clip_g, 6 tensors"


def test_trigger_words_are_the_phrase_or_the_commonest_tags(tmp_path: Path) -> None:
    tensors = pair("transformer.transformer_blocks.0.attn.to_q", 1536, 4)
    tags = json.dumps({"10_a": {"ohwx cat": 12, "grass": 3}, "5_b": {"grass": 20, "sky": 1}})
    assert adapter(tmp_path, tensors, ss_tag_frequency=tags).trigger_words == ("grass", "ohwx cat", "sky")
    phrase = adapter(tmp_path, tensors, modelspec__trigger_phrase="ohwx cat, sitting", ss_tag_frequency=tags)
    assert phrase.trigger_words == ("ohwx cat", "sitting")
    assert phrase.holds.endswith("; words: ohwx cat, sitting")
    for broken in ("[]", "{", "1", '{"a": 1}', '{"a": {"b": "c"}}', '{"a": {"b": 1e999}}', "[" * 100_000):
        assert adapter(tmp_path, tensors, ss_tag_frequency=broken).trigger_words == ()


def test_another_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no tensor is named as an adapter's"):
        adapter(tmp_path, {"joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(4, 4)})
