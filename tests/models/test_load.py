"""The loaders on whole files: what they find, and one clear message for each thing that can be wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import (
    BadValue,
    CorruptFile,
    EngineError,
    MissingFile,
    RefusedFile,
    TensorMismatch,
    UnknownModel,
)
from sigmagraph.engine.models import Checkpoint, load_checkpoint, load_diffusion_model, load_text_encoders, load_vae
from sigmagraph.engine.models.files.read import open_weights
from tests.models.conftest import DATA, Unpack

CHECKPOINT = "checkpoint_all_in_one.safetensors"
ENCODER = "text_encoders.{}.transformer."


@pytest.fixture(scope="module")
def tensors(unpack: Unpack) -> dict[str, Tensor]:
    return load_file(unpack(CHECKPOINT))


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def saved(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def test_an_all_in_one_file_gives_model_encoders_and_vae(checkpoint: Checkpoint) -> None:
    model, clip, vae = checkpoint
    assert (model.spec.shape.depth, model.spec.shape.width, model.spec.shape.has_qk_norm) == (2, 128, False)
    assert clip is not None
    assert set(clip.encoders) == {"clip_l", "clip_g", "t5xxl"}
    assert (clip.widths.context, clip.widths.pooled) == (96, 64)
    assert vae is not None
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.network.parameters())


def test_parts_that_a_checkpoint_lacks_are_none(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    model, clip, vae = load_checkpoint(saved(tmp_path / "x.safetensors", part(tensors, "model.diffusion_model.")))
    assert model.spec.shape.depth == 2
    assert clip is None
    assert vae is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_every_stored_precision_is_read(tmp_path: Path, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in part(tensors, "model.diffusion_model.").items()}
    network = load_diffusion_model(saved(tmp_path / "x.safetensors", stored)).network
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, stored[name].float())


def test_weights_are_copied_not_mapped(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "x.safetensors", {n: t.float() for n, t in part(tensors, "first_stage_model.").items()})
    vae = load_vae(path)
    before = vae.network.decoder.conv_in.weight.clone()
    path.write_bytes(path.read_bytes()[:8] + b"\0" * (path.stat().st_size - 8))
    assert torch.equal(vae.network.decoder.conv_in.weight, before)


def test_the_vae_is_found_alone_with_and_without_prefix_and_in_a_checkpoint(
    tmp_path: Path, tensors: dict[str, Tensor], unpack: Unpack
) -> None:
    bare = part(tensors, "first_stage_model.")
    paths = [
        saved(tmp_path / "bare.safetensors", bare),
        saved(tmp_path / "prefixed.safetensors", {f"first_stage_model.{n}": t for n, t in bare.items()}),
        unpack(CHECKPOINT),
    ]
    latent = torch.randn(1, 16, 2, 3, generator=torch.Generator().manual_seed(1))
    first, *others = [load_vae(path).decode(latent) for path in paths]
    assert all(torch.equal(first, other) for other in others)


def test_separate_encoder_files_in_any_order_are_the_checkpoints_encoders(
    tmp_path: Path, tensors: dict[str, Tensor], checkpoint: Checkpoint
) -> None:
    paths = []
    for name in ("t5xxl", "clip_g", "clip_l"):
        paths.append(saved(tmp_path / f"{name}.safetensors", part(tensors, ENCODER.format(name))))
    clip = load_text_encoders(paths)
    assert checkpoint.clip is not None
    ids = torch.tensor([[254, 5, 9, 255, 0, 0]])
    for name, encoder in checkpoint.clip.encoders.items():
        assert torch.equal(clip.encoders[name].encode(ids).hidden, encoder.encode(ids).hidden)


def openclip_names(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformers tower written the way OpenCLIP stores it."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tower.items():
        layer = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)", name)
        if layer is None:
            outer = {
                "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
                "text_model.embeddings.position_embedding.weight": "positional_embedding",
                "text_model.final_layer_norm.weight": "ln_final.weight",
                "text_model.final_layer_norm.bias": "ln_final.bias",
                "text_projection.weight": "text_projection",
            }
            if name in outer:
                renamed[outer[name]] = tensor.T if name == "text_projection.weight" else tensor
            continue
        inner = layer[2].replace("layer_norm", "ln_").replace("self_attn.out_proj", "attn.out_proj")
        inner = inner.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        renamed[f"transformer.resblocks.{layer[1]}.{inner}"] = tensor
    for kind in ("weight", "bias"):
        for index in {name.split(".")[2] for name in renamed if "resblocks" in name}:
            block = f"transformer.resblocks.{index}."
            qkv = [renamed.pop(f"{block}self_attn.{letter}_proj.{kind}") for letter in "qkv"]
            renamed[f"{block}attn.in_proj_{kind}"] = torch.cat(qkv)
    return renamed


def test_openclip_names_give_the_same_encoder(
    tmp_path: Path, tensors: dict[str, Tensor], checkpoint: Checkpoint
) -> None:
    theirs = openclip_names(part(tensors, ENCODER.format("clip_g")))
    theirs["logit_scale"] = torch.tensor(4.6)
    clip = load_text_encoders([saved(tmp_path / "g.safetensors", theirs)])
    assert checkpoint.clip is not None
    assert set(clip.encoders) == {"clip_g"}
    ids = torch.tensor([[254, 5, 9, 255, 0, 0]])
    ours, expected = clip.encoders["clip_g"].encode(ids), checkpoint.clip.encoders["clip_g"].encode(ids)
    assert ours.pooled is not None
    assert expected.pooled is not None
    assert torch.equal(ours.hidden, expected.hidden)
    assert torch.equal(ours.pooled, expected.pooled)


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_t5_needs_its_embedding_only_once(tmp_path: Path, tensors: dict[str, Tensor], kept: str) -> None:
    t5 = part(tensors, ENCODER.format("t5xxl"))
    embedding = t5.get("shared.weight", t5.get("encoder.embed_tokens.weight"))
    assert embedding is not None
    once = {name: t for name, t in t5.items() if name not in ("shared.weight", "encoder.embed_tokens.weight")}
    clip = load_text_encoders([saved(tmp_path / "t5.safetensors", {**once, kept: embedding})])
    assert set(clip.encoders) == {"t5xxl"}


def test_position_ids_and_logit_scale_are_ignored(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    clip_l = part(tensors, ENCODER.format("clip_l"))
    extra = {"text_model.embeddings.position_ids": torch.arange(77)[None], "logit_scale": torch.tensor(4.6)}
    clip = load_text_encoders([saved(tmp_path / "l.safetensors", {**clip_l, **extra})])
    assert set(clip.encoders) == {"clip_l"}


def test_the_rows_of_the_position_table_are_the_chunk_length(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    clip_l = part(tensors, ENCODER.format("clip_l"))
    table = "text_model.embeddings.position_embedding.weight"
    clip = load_text_encoders([saved(tmp_path / "l.safetensors", {**clip_l, table: torch.zeros(24, 64)})])
    assert clip.encoders["clip_l"].rule.chunk_length == 24


def test_the_same_encoder_twice_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "l.safetensors", part(tensors, ENCODER.format("clip_l")))
    with pytest.raises(BadValue, match="another encoder than clip_l"):
        load_text_encoders([path, path])


def test_a_type_of_encoders_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadValue, match="'flux' is not allowed; expected 'sd3'"):
        load_text_encoders([], kind="flux")


def test_the_shortest_t5_prompt_comes_from_the_metadata(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    t5 = part(tensors, ENCODER.format("t5xxl"))
    metadata = {"sigmagraph.text": json.dumps({"t5xxl_min_length": 16})}
    clip = load_text_encoders([saved(tmp_path / "t5.safetensors", t5, metadata)])
    assert clip.encoders["t5xxl"].rule.min_length == 16


@pytest.mark.parametrize("text", ["[]", "{", '{"t5xxl_min_length": 0}', '{"t5xxl_min_length": "a"}', "[" * 100_000])
def test_damaged_text_metadata_is_corrupt(tmp_path: Path, tensors: dict[str, Tensor], text: str) -> None:
    t5 = part(tensors, ENCODER.format("t5xxl"))
    with pytest.raises(CorruptFile, match=r"metadata sigmagraph\.text"):
        load_text_encoders([saved(tmp_path / "t5.safetensors", t5, {"sigmagraph.text": text})])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "an adapter"),
        ("double_blocks.0.img_attn.qkv.weight", "a FLUX model"),
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "a FLUX model"),
        ("conditioner.embedders.1.model.ln_final.weight", "an SDXL model"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "a Stable Diffusion 1 or 2 model"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a UNet"),
        ("post_quant_conv.weight", "a VAE with quantisation convolutions"),
        ("controlnet_blocks.0.weight", "a ControlNet"),
        ("something.else", "belong to no model known here"),
    ],
)
@pytest.mark.parametrize("load", [load_checkpoint, load_diffusion_model, load_vae])
def test_foreign_models_are_named(tmp_path: Path, name: str, kind: str, load: Callable[[Path], object]) -> None:
    path = saved(tmp_path / "x.safetensors", {name: torch.zeros(4, 4)})
    with pytest.raises(UnknownModel, match=kind):
        load(path)


def test_a_file_with_other_parts_than_wanted_says_what_it_holds(
    tmp_path: Path, tensors: dict[str, Tensor], unpack: Unpack
) -> None:
    vae = saved(tmp_path / "vae.safetensors", part(tensors, "first_stage_model."))
    with pytest.raises(UnknownModel, match="it holds a VAE; a diffusion model of the SD3 family was expected"):
        load_checkpoint(vae)
    with pytest.raises(UnknownModel, match="it holds a diffusion model; a 16-channel VAE was expected"):
        load_vae(unpack("mmdit_c.safetensors"))
    with pytest.raises(UnknownModel, match="it holds a VAE; a text encoder was expected"):
        load_text_encoders([vae])


def test_a_vae_of_four_channels_is_not_taken_for_ours(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    vae = part(tensors, "first_stage_model.")
    vae["decoder.conv_in.weight"] = torch.zeros(64, 4, 3, 3)
    with pytest.raises(UnknownModel, match="another latent than SD3's 16 channels"):
        load_vae(saved(tmp_path / "x.safetensors", vae))


def test_missing_surplus_and_misshapen_tensors_are_listed(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    model = part(tensors, "model.diffusion_model.")
    del model["final_layer.linear.bias"]
    model["joint_blocks.0.x_block.extra"] = torch.zeros(1)
    model["t_embedder.mlp.0.bias"] = torch.zeros(7)
    with pytest.raises(TensorMismatch) as caught:
        load_diffusion_model(saved(tmp_path / "x.safetensors", model))
    for told in (
        "1 missing: final_layer.linear.bias",
        "1 surplus: joint_blocks.0.x_block.extra",
        "t_embedder.mlp.0.bias [7] instead of [128]",
    ):
        assert told in str(caught.value)


def test_a_surplus_tensor_is_told_and_left_out(
    tmp_path: Path, tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = part(tensors, "model.diffusion_model.")
    plain = load_diffusion_model(saved(tmp_path / "plain.safetensors", model))
    model["something.nobody.knows"] = torch.zeros(3)
    with caplog.at_level("WARNING"):
        loaded = load_diffusion_model(saved(tmp_path / "more.safetensors", model))
    assert "1 surplus: something.nobody.knows" in caplog.text
    expected = plain.network.state_dict()
    assert expected.keys() == loaded.network.state_dict().keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.network.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["model.diffusion_model.", "first_stage_model.", *map(ENCODER.format, ("clip_l", "t5xxl"))]
)
def test_whatever_tensor_is_missing_or_misshapen_the_answer_is_an_engine_error(
    tmp_path: Path, tensors: dict[str, Tensor], prefix: str
) -> None:
    whole = part(tensors, prefix)
    load: Callable[[Path], object] = {"m": load_diffusion_model, "f": load_vae}.get(
        prefix[0], lambda path: load_text_encoders([path])
    )
    optional = {"shared.weight", "encoder.embed_tokens.weight"}
    for name in sorted(set(whole) - optional)[::5]:
        others = {key: tensor for key, tensor in whole.items() if key != name}
        missing = [others] if name != "pos_embed" else []  # without it positions are computed
        for changed in (*missing, {**others, name: torch.zeros(3)}, {**others, name: torch.zeros(0)}):
            with pytest.raises(EngineError):
                load(saved(tmp_path / "x.safetensors", changed))


def test_a_block_number_out_of_all_proportion_builds_nothing(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    model = part(tensors, "model.diffusion_model.")
    model["joint_blocks.99999999.x_block.attn.qkv.weight"] = torch.zeros(1)
    with pytest.raises(TensorMismatch, match="depth=100000000"):
        load_diffusion_model(saved(tmp_path / "x.safetensors", model))


def test_a_pickle_called_safetensors_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, tmp_path / "x.safetensors")
    with pytest.raises(RefusedFile, match="only safetensors and GGUF files are opened"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_truncated_checkpoint_is_corrupt_and_a_missing_one_missing(tmp_path: Path, unpack: Unpack) -> None:
    (tmp_path / "x.safetensors").write_bytes(unpack(CHECKPOINT).read_bytes()[:-1])
    with pytest.raises(CorruptFile, match="truncated"):
        load_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(MissingFile, match="no such file"):
        load_checkpoint(tmp_path / "y.safetensors")


def test_a_prompt_without_a_tokenizer_names_the_command_that_brings_it(checkpoint: Checkpoint) -> None:
    assert checkpoint.clip is not None
    with pytest.raises(MissingFile, match=r"no tokenizer for t5xxl .* `sigmagraph fetch tokenizers` brings it"):
        checkpoint.clip.encode("a cat")


@pytest.mark.parametrize("place", ["metadata", "beside", "folder"])
def test_a_tokenizer_is_found_in_the_metadata_beside_the_file_and_in_the_tokenizers_folder(
    tmp_path: Path, tensors: dict[str, Tensor], place: str
) -> None:
    text = (DATA / "clip_subset.tokenizer.json").read_text("utf-8")
    for folder in ("text_encoders", "tokenizers"):
        (tmp_path / "models" / folder).mkdir(parents=True)
    path = tmp_path / "models" / "text_encoders" / "l.safetensors"
    saved(path, part(tensors, ENCODER.format("clip_l")), {"tokenizer.clip_l": text} if place == "metadata" else None)
    if place == "beside":
        path.with_name("clip_l.tokenizer.json").write_text(text, "utf-8")
    if place == "folder":
        (tmp_path / "models" / "tokenizers" / "clip.tokenizer.json").write_text(text, "utf-8")
    clip = load_text_encoders([path])
    assert [token for token, _ in clip.tokenize("a (cat:1.2)")["clip_l"][0][:4]] == [254, 320, 2368, 255]
    with pytest.raises(TensorMismatch, match="gives id 2368, the encoder knows 256"):
        clip.encode("a cat")


@pytest.mark.parametrize("text", ["", "{}", '{"model": 3}', "no json"])
def test_a_damaged_tokenizer_is_corrupt(tmp_path: Path, tensors: dict[str, Tensor], text: str) -> None:
    path = saved(tmp_path / "l.safetensors", part(tensors, ENCODER.format("clip_l")), {"tokenizer.clip_l": text})
    with pytest.raises(CorruptFile, match=r"metadata tokenizer\.clip_l: is not a tokenizer"):
        load_text_encoders([path]).encode("a cat")


def test_thirds_of_a_layer_that_are_stored_differently_are_fused(tmp_path: Path, diffusers_shards: Path) -> None:
    whole = {name: stored.read() for name, stored in open_weights(diffusers_shards).weights.items()}
    name = "transformer_blocks.0.attn.to_q.weight"
    whole[name] = whole[name].to(torch.float8_e4m3fn)
    save_file(whole, tmp_path / "x.safetensors")
    fused = load_diffusion_model(tmp_path / "x.safetensors").recipe.base["joint_blocks.0.x_block.attn.qkv.weight"]
    thirds = [whole[name.replace("to_q", f"to_{letter}")].float() for letter in "qkv"]
    assert torch.equal(fused.read().float(), torch.cat(thirds))
    assert fused.dtype.itemsize > 1  # what is saved of it keeps the wider parts


@pytest.mark.parametrize("buckets", [1, 3, 512])
def test_t5_with_buckets_that_measure_no_distance_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], buckets: int
) -> None:
    prefix = "text_encoders.t5xxl.transformer."
    alone = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    save_file({**alone, bias: torch.ones(buckets, alone[bias].shape[1])}, tmp_path / "t5.safetensors")
    with pytest.raises(TensorMismatch, match=f"{buckets} buckets of distances"):
        load_text_encoders([tmp_path / "t5.safetensors"])


@pytest.mark.parametrize(
    ("prefix", "name", "load"),
    [
        (
            "text_encoders.clip_l.transformer.",
            "text_model.embeddings.token_embedding.weight",
            lambda path: load_text_encoders([path]),
        ),
        ("first_stage_model.", "decoder.conv_in.weight", load_vae),
    ],
)
def test_a_deciding_tensor_that_is_one_number_is_an_engine_error(
    tmp_path: Path, tensors: dict[str, Tensor], prefix: str, name: str, load: Callable[[Path], object]
) -> None:
    with pytest.raises(EngineError):
        load(saved(tmp_path / "x.safetensors", part(tensors, prefix) | {name: torch.ones(())}))
