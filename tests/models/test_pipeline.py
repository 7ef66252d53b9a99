"""Folders as diffusers saves pipelines, with shards and with two precisions side by side."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from sigmagraph.engine.errors import CorruptFile, MissingFile, UnknownModel
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models.files.read import open_weights
from sigmagraph.engine.models.load import load_pipeline
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.nodes import NODES
from tests.models import control_oracles as oracle

PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def clip(width: int) -> CLIPTextModelWithProjection:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
    return CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=32, projection_dim=width, **sizes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a sharded transformer, and fp16 twins of it and of one encoder that are other weights."""
    folder = tmp_path_factory.mktemp("models") / "diffusers/sd3/tiny"
    oracle.transformer(2).save_pretrained(folder / "transformer", max_shard_size="1MB")
    oracle.transformer(2, seed=9).half().save_pretrained(folder / "transformer", variant="fp16", max_shard_size="1MB")
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        latent_channels=16,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    autoencoder.save_pretrained(folder / "vae")
    for place in ("text_encoder", "text_encoder_2"):
        clip(64).save_pretrained(folder / place)
    clip(64).half().save_pretrained(folder / "text_encoder", variant="fp16")
    sizes = {"vocab_size": 32, "d_model": 64, "d_kv": 64, "d_ff": 64, "num_layers": 1, "num_heads": 1}
    T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **sizes)).save_pretrained(folder / "text_encoder_3")
    index = {part: ["library", "Class"] for part in PARTS} | {"_class_name": "StableDiffusion3Pipeline"}
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


def test_every_part_is_loaded_each_encoder_in_its_place_and_the_plain_precision_is_told(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model, encoders, vae = load_pipeline(saved)
    assert "text_encoder: model.safetensors is read, not model.fp16.safetensors" in caplog.text
    assert "diffusion_pytorch_model.safetensors.index.json is read, not" in caplog.text
    assert encoders is not None
    assert set(encoders.encoders) == {"clip_l", "clip_g", "t5xxl"}
    assert vae is not None
    assert vae.decode(torch.zeros(1, 16, 2, 2)).shape == (1, 16, 16, 3)
    theirs = oracle.transformer(2)
    name = "x_embedder.proj.weight"
    assert torch.equal(model.network.state_dict()[name], theirs.state_dict()["pos_embed.proj.weight"])


def test_the_chosen_precision_is_read_where_it_is_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RESIDENCY, "choices", replace(RESIDENCY.choices, model="fp16"))
    model, *_ = load_pipeline(saved)
    half = oracle.transformer(2, seed=9).half().state_dict()["pos_embed.proj.weight"]
    assert torch.equal(model.recipe.weights["x_embedder.proj.weight"].read(), half)


def test_encoders_that_a_pipeline_lacks_stay_empty(saved: Path, tmp_path: Path) -> None:
    for part in ("transformer", "vae", "text_encoder"):
        (tmp_path / part).symlink_to(saved / part)
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["d", "T"], "text_encoder": ["t", "C"]}
    index |= {"text_encoder_3": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index), "utf-8")
    _, encoders, vae = load_pipeline(tmp_path)
    assert encoders is not None
    assert set(encoders.encoders) == {"clip_l"}
    assert vae is None


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ('{"_class_name": "FluxPipeline"}', UnknownModel, "a pipeline of class FluxPipeline"),
        ("[]", CorruptFile, "is not the index of a pipeline"),
        ("{", CorruptFile, "is not the index of a pipeline"),
        (None, MissingFile, "not a pipeline of diffusers"),
    ],
)
def test_what_is_no_pipeline_of_the_family_is_said(
    tmp_path: Path, text: str | None, error: type[Exception], reason: str
) -> None:
    if text is not None:
        (tmp_path / "model_index.json").write_text(text, "utf-8")
    with pytest.raises(error, match=reason):
        load_pipeline(tmp_path)


def test_two_models_in_a_folder_are_still_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.fp16.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(MissingFile, match=r"holds several models \(a.safetensors, b.fp16.safetensors\)"):
        open_weights(tmp_path)


def test_the_loader_offers_the_folders_that_are_pipelines(saved: Path, tmp_path: Path) -> None:
    folders = Folders(saved.parents[2], tmp_path, tmp_path, tmp_path)
    declared = NODES["DiffusersLoader"].declared["model_path"]
    assert declared.allowed(folders) == ["sd3/tiny"]
    assert declared.file is not None
    held = [path.relative_to(saved).as_posix() for path in declared.file.paths(folders, "sd3/tiny")]
    assert "model_index.json" in held
    assert "text_encoder/model.safetensors" in held
    model, encoders, vae = NODES["DiffusersLoader"](model_path="sd3/tiny", services=folders)
    assert model.spec.shape.depth == 2
    assert encoders is not None
    assert vae is not None
