"""Merged models compute what their weights' sums compute; what is saved is what was loaded, to the bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue, TensorMismatch
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import (
    Checkpoint,
    Clip,
    Model,
    load_adapter,
    load_checkpoint,
    load_diffusion_model,
    load_text_encoders,
)
from sigmagraph.engine.models.save import best_factors
from sigmagraph.nodes import NODES
from tests.tiny import write_checkpoint

MODEL = "model.diffusion_model."


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("two")
    return [write_checkpoint(folder / f"{seed}.safetensors", seed) for seed in (0, 1)]


@pytest.fixture
def pair(files: list[Path]) -> list[Checkpoint]:
    return [load_checkpoint(path) for path in files]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


def predicted(model: Model, clip: Clip | None) -> Tensor:
    assert clip is not None
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    return model.predict(x, 0.6, [clip.encode("a red circle")])[0]


def summed(files: list[Path], path: Path, weigh: Callable[[str], tuple[float, float]]) -> Model:
    """The model of the sums, added here and saved in float32."""
    one, other = (load_file(file) for file in files)
    named = [name for name in one if name.startswith(MODEL)]
    shares = {name: weigh(name.removeprefix(MODEL)) for name in named}
    save_file({n: one[n].float() * shares[n][0] + other[n].float() * shares[n][1] for n in named}, path)
    return load_diffusion_model(path)


CASES: dict[str, tuple[dict[str, Any], Callable[[str], tuple[float, float]]]] = {
    "ModelMergeSimple": ({"ratio": 0.3}, lambda _: (0.3, 0.7)),
    "ModelMergeAdd": ({}, lambda _: (1.0, 1.0)),
    "ModelMergeSubtract": ({"multiplier": 0.5}, lambda _: (0.5, -0.5)),
    "ModelMergeBlocks": ({"input": 0.25, "middle": 1.0, "out": 1.0}, lambda _: (0.25, 0.75)),
    "ModelMergeSD3_2B": (
        {"pos_embed.": 0.5, "joint_blocks.1.": 0.25, "final_layer.": 0.0, "x_embedder.": 0.75},
        lambda name: (
            (share, 1 - share)
            if (
                share := {"pos_embed": 0.5, "joint_blocks.1": 0.25, "final_layer": 0.0, "x_embedder": 0.75}.get(
                    ".".join(name.split(".")[: 2 if name.startswith("joint") else 1]), 1.0
                )
            )
            < 1
            else (1.0, 0.0)
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_merged_model_predicts_what_the_sums_of_the_weights_do(
    files: list[Path], pair: list[Checkpoint], tmp_path: Path, name: str
) -> None:
    inputs, weigh = CASES[name]
    merged = NODES[name](model1=pair[0].model, model2=pair[1].model, **inputs)
    dense = summed(files, tmp_path / "sums.safetensors", weigh)
    torch.testing.assert_close(predicted(merged, pair[0].clip), predicted(dense, pair[0].clip), rtol=0, atol=1e-5)
    assert merged.recipe.key != pair[0].model.recipe.key


def test_ratios_of_one_and_nought_are_the_models_themselves(pair: list[Checkpoint]) -> None:
    for ratio, whose in ((1.0, 0), (0.0, 1)):
        merged = NODES["ModelMergeSimple"](model1=pair[0].model, model2=pair[1].model, ratio=ratio)
        assert torch.equal(predicted(merged, pair[0].clip), predicted(pair[whose].model, pair[0].clip))


def test_a_merge_of_merges_and_its_ratio_are_networks_of_their_own(pair: list[Checkpoint]) -> None:
    simple, models = NODES["ModelMergeSimple"], [part.model for part in pair]
    half = simple(model1=models[0], model2=models[1], ratio=0.5)
    quarter = simple(model1=half, model2=models[1], ratio=0.5)
    direct = simple(model1=models[0], model2=models[1], ratio=0.25)
    assert len({half.recipe.key, quarter.recipe.key, direct.recipe.key}) == 3
    assert len({half.fingerprint, quarter.fingerprint, direct.fingerprint}) == 3
    torch.testing.assert_close(predicted(quarter, pair[0].clip), predicted(direct, pair[0].clip), rtol=0, atol=1e-5)


def test_models_of_different_sizes_do_not_merge(pair: list[Checkpoint], tmp_path: Path, files: list[Path]) -> None:
    tensors = {n.removeprefix(MODEL): t for n, t in load_file(files[0]).items() if n.startswith(MODEL)}
    tensors["pos_embed"] = torch.zeros(1, 64, 128)
    save_file(tensors, tmp_path / "other.safetensors")
    other = load_diffusion_model(tmp_path / "other.safetensors")
    with pytest.raises(
        TensorMismatch, match="not of one architecture: 1 tensors that are not in both in one size: pos_"
    ):
        NODES["ModelMergeAdd"](model1=pair[0].model, model2=other)


@pytest.mark.parametrize(
    ("name", "inputs", "shares"),
    [
        ("CLIPMergeSimple", {"ratio": 0.3}, (0.3, 0.7)),
        ("CLIPMergeAdd", {}, (1.0, 1.0)),
        ("CLIPMergeSubtract", {"multiplier": 2.0}, (2.0, -2.0)),
    ],
)
def test_merged_encoders_have_the_sums_of_the_weights(
    files: list[Path], pair: list[Checkpoint], folders: Folders, name: str, inputs: dict[str, Any], shares: Any
) -> None:
    merged = NODES[name](clip1=pair[0].clip, clip2=pair[1].clip, **inputs)
    NODES["CLIPSave"](clip=merged, filename_prefix="x", services=folders)
    one, other = (load_file(file) for file in files)
    for encoder in ("clip_l", "clip_g", "t5xxl"):
        saved = load_file(folders.output_dir / f"x_{encoder}_00001_.safetensors")
        prefix = f"text_encoders.{encoder}.transformer."
        assert {prefix + name for name in saved} == {name for name in one if name.startswith(prefix)}
        for key, tensor in saved.items():
            expected = one[prefix + key].float() * shares[0] + other[prefix + key].float() * shares[1]
            assert torch.equal(tensor, expected.half())


@pytest.mark.parametrize("factors", [{"q": 0.5, "k": 2.0, "v": 0.0, "out": 1.5}, {"q": 1.3, "k": 0.7, "v": 10.0}])
def test_the_attention_of_clip_encoders_is_multiplied_and_nothing_else(
    files: list[Path], pair: list[Checkpoint], folders: Folders, factors: dict[str, float]
) -> None:
    """As ComfyUI's recorded weights: q, k, v and out, weights and biases, in float32 and rounded once."""
    NODES["CLIPSave"](
        clip=NODES["CLIPAttentionMultiply"](clip=pair[0].clip, **factors), filename_prefix="x", services=folders
    )
    before = load_file(files[0])
    for encoder in ("clip_l", "clip_g", "t5xxl"):
        saved = load_file(folders.output_dir / f"x_{encoder}_00001_.safetensors")
        for key, tensor in saved.items():
            stored = before[f"text_encoders.{encoder}.transformer.{key}"]
            part = key.partition("self_attn.")[2].partition("_proj")[0]
            assert torch.equal(tensor, (stored.float() * factors.get(part, 1.0)).to(stored.dtype)), key


def test_factors_of_one_leave_the_encoders_as_they_are(pair: list[Checkpoint]) -> None:
    clips = [NODES["CLIPAttentionMultiply"](clip=pair[0].clip, q=q) for q in (1.0, 2.0, 3.0)]
    same, two, three = ([encoder.recipe.key for encoder in clip.patched.values()] for clip in clips)
    assert pair[0].clip is not None
    assert same == [encoder.recipe.key for encoder in pair[0].clip.patched.values()]
    assert two[2] == three[2] == same[2], "T5"
    assert len({*same, *two, *three}) == 7


def test_a_saved_checkpoint_is_the_loaded_one_to_the_bit_and_carries_the_workflow(
    files: list[Path], pair: list[Checkpoint], folders: Folders
) -> None:
    model, clip, vae = pair[0]
    said: list[tuple[float, float]] = []
    graph, drawing = {"1": {"class_type": "CheckpointSave"}}, {"workflow": {"nodes": []}}
    inputs = {"prompt": graph, "extra_pnginfo": drawing, "services": folders, "going": lambda *at: said.append(at)}
    NODES["CheckpointSave"](model=model, clip=clip, vae=vae, filename_prefix="checkpoints/mine", **inputs)
    path = folders.output_dir / "checkpoints/mine_00001_.safetensors"
    before, after = load_file(files[0]), load_file(path)
    assert after.keys() == before.keys()
    assert all(
        after[name].dtype == tensor.dtype and torch.equal(after[name], tensor) for name, tensor in before.items()
    )
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["prompt"]) == graph
    assert json.loads(metadata["workflow"]) == drawing["workflow"]
    assert metadata["modelspec.title"] == "mine 1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v3-medium"
    assert said[-1][0] == said[-1][1] == sum(tensor.nbytes for tensor in before.values())
    assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]
    loaded = load_checkpoint(path)  # its text encoders need the tokenizers and the length of prompts that came along
    assert torch.equal(predicted(loaded.model, loaded.clip), predicted(model, clip))


def test_saved_encoders_bring_their_tokenizers(pair: list[Checkpoint], folders: Folders) -> None:
    clip = pair[0].clip
    assert clip is not None
    NODES["CLIPSave"](clip=clip, filename_prefix="deep/er/x", services=folders)
    paths = [folders.output_dir / f"deep/er/x_{name}_00001_.safetensors" for name in ("t5xxl", "clip_g", "clip_l")]
    loaded = load_text_encoders(paths)
    before, after = clip.encode("a (red:1.2) circle"), loaded.encode("a (red:1.2) circle")
    assert torch.equal(before.context, after.context)
    assert before.pooled is not None
    assert after.pooled is not None
    assert torch.equal(before.pooled, after.pooled)


def test_models_and_autoencoders_are_saved_alone(files: list[Path], pair: list[Checkpoint], folders: Folders) -> None:
    before = load_file(files[0])
    for _ in range(2):
        NODES["ModelSave"](model=pair[0].model, filename_prefix="m", services=folders)
    NODES["VAESave"](vae=pair[0].vae, filename_prefix="v", services=folders)
    model, vae = (load_file(folders.output_dir / f"{name}_.safetensors") for name in ("m_00002", "v_00001"))
    assert {n: t for n, t in before.items() if n.startswith(MODEL)}.keys() == model.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.items())
    assert all(torch.equal(tensor, before["first_stage_model." + name]) for name, tensor in vae.items())


def low_rank_change(path: Path, source: Path, rank: int) -> Path:
    """The checkpoint with a change of a known rank in every matrix of the transformer."""
    tensors, random = load_file(source), torch.Generator().manual_seed(5)
    for name, tensor in tensors.items():
        if name.startswith((MODEL, "text_encoders.clip_l")) and tensor.ndim >= 2 and "pos_embed" not in name:
            flat = tensor.float().flatten(1)
            up, down = (torch.randn(*size, generator=random) for size in ((len(flat), rank), (rank, flat.shape[1])))
            tensors[name] = (flat + up @ down / 100).view(tensor.shape)
    save_file({name: tensor.float() for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("kind", ["standard", "full_diff"])
def test_an_adapter_by_difference_gives_the_changed_model_back(
    files: list[Path], pair: list[Checkpoint], folders: Folders, tmp_path: Path, kind: str
) -> None:
    changed = load_checkpoint(low_rank_change(tmp_path / "changed.safetensors", files[0], 4))
    model = NODES["ModelMergeSubtract"](model1=changed.model, model2=pair[0].model, multiplier=1.0)
    clip = NODES["CLIPMergeSubtract"](clip1=changed.clip, clip2=pair[0].clip, multiplier=1.0)
    inputs = {"rank": 4, "lora_type": kind, "bias_diff": True, "services": folders}
    NODES["LoraSave"](filename_prefix="lora", model_diff=model, text_encoder_diff=clip, **inputs)
    adapter = load_adapter(folders.output_dir / "lora_00001_.safetensors")
    assert not adapter.unknown
    assert pair[0].clip is not None
    fitted, encoders = pair[0].model.fitting(adapter), pair[0].clip.fitting(adapter)
    assert not adapter.unused(fitted, *encoders.values())
    again = pair[0].model.with_adapter(adapter, 1.0)
    far, near = (
        predicted(either, pair[0].clip) - predicted(changed.model, pair[0].clip) for either in (pair[0].model, again)
    )
    assert float(near.norm()) < 0.01 * float(far.norm())


def test_the_factors_are_the_nearest_of_their_rank() -> None:
    matrix = torch.randn(300, 200, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, 200)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    best = (left[:, :8] * values[:8]) @ right[:8]
    up, down = best_factors(matrix, 8)
    assert up.shape == (300, 8)
    assert down.shape == (8, 200)
    assert float((matrix - up @ down).norm()) <= 1.001 * float((matrix - best).norm())


def test_no_difference_is_no_adapter(folders: Folders) -> None:
    with pytest.raises(BadValue, match="a difference of models"):
        NODES["LoraSave"](lora_type="standard", services=folders)


def test_a_checkpoint_saved_with_taesd3_has_it_again(pair: list[Checkpoint], folders: Folders) -> None:
    torch.manual_seed(2)
    path = folders.models / "vae/tiny.safetensors"
    path.parent.mkdir(parents=True)
    save_file(AutoencoderTiny(latent_channels=16).state_dict(), path)
    tiny = NODES["VAELoader"](vae_name=path.name, services=folders)
    inputs = {"model": pair[0].model, "clip": pair[0].clip, "vae": tiny, "filename_prefix": "x", "services": folders}
    NODES["CheckpointSave"](**inputs)
    again = load_checkpoint(folders.output_dir / "x_00001_.safetensors").vae
    assert again is not None
    latent = torch.randn(1, 16, 4, 4)
    assert torch.equal(again.decode(latent), tiny.decode(latent))


def test_an_autoencoder_without_weights_is_not_saved(folders: Folders) -> None:
    nothing = NODES["VAELoader"](vae_name="pixel_space", services=folders)
    with pytest.raises(BadValue, match="without a weight"):
        NODES["VAESave"](vae=nothing, filename_prefix="x", services=folders)
    assert not list(folders.output_dir.rglob("*.safetensors"))
