"""Files as people have them, one layout after another, where their node looks: loaded with the right values, or named.

They are small and random, each written here or by the library that writes it in life. A wrong value fails as a missing
tensor does. Folders of whole pipelines: test_pipeline.py.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import RefusedFile, UnknownModel
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import Checkpoint, Clip, load_adapter, load_text_encoders
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.text.embeddings import Embeddings
from sigmagraph.nodes import NODES
from tests.models import control_oracles as oracle
from tests.models.conftest import Unpack
from tests.models.files.test_gguf import of_llama
from tests.models.files.test_gguf import written as gguf_written
from tests.models.test_adapters import STYLES
from tests.models.test_tiny_vae import halves
from tests.weights import drawn_weights

MODEL, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "text_encoders."
T5, E4M3 = "text_encoders.t5xxl.transformer.", torch.float8_e4m3fn
MEDIUM_3, MEDIUM_35, LARGE = (
    MMDiTShape(2, 128, 64, 96, 8),
    MMDiTShape(2, 128, 64, 96, 12, has_qk_norm=True, dual_attention_blocks=frozenset({0})),
    MMDiTShape(3, 192, 64, 96, 8, has_qk_norm=True),
)
Tensors = Mapping[str, Tensor]
Form = Callable[[Tensors], tuple[dict[str, Tensor], dict[str, Tensor]]]
"""Values -> what is stored of them, and the values that come of that."""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")


@pytest.fixture(scope="module")
def official(unpack: Unpack) -> dict[str, Tensor]:
    return load_file(unpack("checkpoint_all_in_one.safetensors"))


def stored(folders: Folders, place: str, tensors: Tensors) -> None:
    path = folders.models / place
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def part(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def holds(network: Any, expected: Tensors) -> None:
    """Its tensors are these and no others, to the bit in float32."""
    found = network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor.float(), expected[name].float()) for name, tensor in found.items())


def encoded(clip: Clip, name: str) -> Tensor:
    ids = [254, 5, 9, 255, 0, 0] if name != "t5xxl" else [5, 9, 2, 1, 0, 0]
    states: Tensor = clip.encoders[name].encode(torch.tensor([ids])).hidden
    return states


def as_is(dtype: torch.dtype) -> Form:
    def form(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        kept = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        return kept, kept

    return form


def is_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 2 and "block" in name and name.endswith("weight") and "relative" not in name


def float8_with_16_bit_biases(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    kept = {name: t.to(E4M3 if is_matrix(name, t) else torch.bfloat16) for name, t in tensors.items()}
    return kept, kept


def scaled(scale_name: str, said: str = "") -> Form:
    """float8 with a scale beside each matrix: `scale_weight` and a marker, or ComfyUI's newer form, which says so."""

    def form(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        kept, values = {name: tensor.half() for name, tensor in tensors.items()}, {}
        for name in [name for name, tensor in tensors.items() if is_matrix(name, tensor)]:
            layer, scale = name.removesuffix("weight"), tensors[name].float().abs().amax() / 448
            kept[name], kept[layer + scale_name] = (tensors[name].float() / scale).to(E4M3), scale
            values[name] = kept[name].float() * scale
            if said:
                kept[layer + "comfy_quant"] = torch.tensor(
                    list(json.dumps({"format": said}).encode()), dtype=torch.uint8
                )
        values = {name: values.get(name, kept[name]) for name in tensors}
        return kept if said else kept | {"scaled_fp8": torch.zeros(0, dtype=E4M3)}, values

    return form


SCALE_WEIGHT, COMFY_QUANT = scaled("scale_weight"), scaled("weight_scale", "float8_e4m3fn")
HALF, BF16, FLOAT8 = as_is(torch.float16), as_is(torch.bfloat16), as_is(E4M3)

ALL_IN_ONE: dict[str, tuple[MMDiTShape, Form, Form | None, set[str]]] = {
    "sd3_medium": (MEDIUM_3, HALF, None, set()),
    "sd3.5_medium": (MEDIUM_35, HALF, None, set()),
    "sd3_medium_incl_clips": (MEDIUM_3, HALF, None, {"clip_l", "clip_g"}),
    "sd3_medium_incl_clips_t5xxlfp16": (MEDIUM_3, HALF, HALF, {"clip_l", "clip_g", "t5xxl"}),
    "sd3_medium_incl_clips_t5xxlfp8": (MEDIUM_3, HALF, FLOAT8, {"clip_l", "clip_g", "t5xxl"}),
    "sd3.5_medium_incl_clips_t5xxlfp8scaled": (MEDIUM_35, HALF, SCALE_WEIGHT, {"clip_l", "clip_g", "t5xxl"}),
    "sd3.5_large, large_turbo": (LARGE, BF16, None, set()),
    "sd3.5_large_fp8_scaled": (LARGE, SCALE_WEIGHT, SCALE_WEIGHT, {"clip_l", "clip_g", "t5xxl"}),
}


@pytest.mark.parametrize("name", ALL_IN_ONE)
def test_all_in_one_files(folders: Folders, official: dict[str, Tensor], checkpoint: Checkpoint, name: str) -> None:
    shape, form, t5_form, encoders = ALL_IN_ONE[name]
    model, values = form(drawn_weights(shape))
    tensors = prefixed(MODEL, model) | prefixed(VAE, part(official, VAE))
    for encoder in encoders - {"t5xxl"}:
        tensors |= {key: tensor for key, tensor in official.items() if key.startswith(TEXT + encoder)}
    if t5_form is not None:
        t5, t5_values = t5_form(part(official, T5))
        tensors |= prefixed(T5, t5)
        stored(folders, "twin.safetensors", {key: tensor.float() for key, tensor in t5_values.items()})
    stored(folders, "checkpoints/x.safetensors", tensors)
    loaded, clip, vae = NODES["CheckpointLoaderSimple"](ckpt_name="x.safetensors", services=folders)
    holds(loaded.network, values)
    holds(vae.network, part(official, VAE))
    assert (set(clip.encoders) if clip else set()) == encoders
    for encoder in encoders - {"t5xxl"}:
        assert checkpoint.clip is not None
        assert torch.equal(encoded(clip, encoder), encoded(checkpoint.clip, encoder))
    if t5_form is not None:
        twin = load_text_encoders([folders.models / "twin.safetensors"])
        assert torch.equal(encoded(clip, "t5xxl"), encoded(twin, "t5xxl"))


def float64_biases(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    kept = {name: t.double() if name.endswith("bias") else t.half() for name, t in tensors.items()}
    return kept, kept


ALONE: dict[str, tuple[str, str, Form]] = {
    "bare, 16 bits": ("x.safetensors", "", BF16),
    "bare, float8": ("x.safetensors", "", FLOAT8),
    "float8 matrices, 16-bit biases, no scales": ("x.safetensors", "", float8_with_16_bit_biases),
    "float8 with scale_weight": ("x.safetensors", "", SCALE_WEIGHT),
    "float8 with weight_scale and comfy_quant": ("x.safetensors", MODEL, COMFY_QUANT),
    ".sft": ("x.sft", "", HALF),
    "float64 biases": ("x.safetensors", MODEL, float64_biases),
}


@pytest.mark.parametrize("name", ALONE)
def test_diffusion_models_alone(folders: Folders, name: str) -> None:
    file, prefix, form = ALONE[name]
    model, values = form(drawn_weights(MEDIUM_35))
    stored(folders, f"diffusion_models/{file}", prefixed(prefix, model))
    holds(NODES["UNETLoader"](unet_name=file, weight_dtype="default", services=folders).network, values)


def test_extra_tensors_are_told_and_a_missing_table_is_computed(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    model = drawn_weights(MEDIUM_35)
    stored(folders, "unet/outside.safetensors", prefixed(MODEL, model) | {"model_ema.decay": torch.ones(1)})
    stored(folders, "unet/beside.safetensors", model | {"nobody.knows": torch.ones(1)})
    stored(folders, "unet/computed.safetensors", {key: t for key, t in model.items() if key != "pos_embed"})
    with caplog.at_level("WARNING"):
        loaded = {
            name: NODES["UNETLoader"](unet_name=f"{name}.safetensors", weight_dtype="default", services=folders)
            for name in ("outside", "beside", "computed")
        }
    holds(loaded["outside"].network, model)
    holds(loaded["beside"].network, model)
    assert "1 surplus: nobody.knows" in caplog.text
    assert loaded["computed"].spec.shape.table_side == 0
    assert "no position table (pos_embed)" in caplog.text


def test_gguf_of_a_transformer_and_of_t5(folders: Folders, official: dict[str, Tensor]) -> None:
    for place in ("unet", "clip"):
        (folders.models / place).mkdir(parents=True)
    path, values = gguf_written(folders.models / "unet/m-Q8_0.gguf", drawn_weights(MEDIUM_35), Kind.Q8_0)
    holds(NODES["UnetLoaderGGUF"](unet_name=path.name, services=folders).network, values)
    t5 = {key: tensor for key, tensor in part(official, T5).items() if "embed_tokens" not in key}
    named = {of_llama(key): key for key in t5}
    path, grown = gguf_written(
        folders.models / "clip/t5-Q4_0.gguf", {name: t5[key] for name, key in named.items()}, Kind.Q4_0, "t5encoder"
    )
    stored(folders, "twin.safetensors", {key: grown[name] for name, key in named.items()})
    clip = NODES["CLIPLoaderGGUF"](clip_name=path.name, type="sd3", services=folders)
    twin = load_text_encoders([folders.models / "twin.safetensors"])
    assert torch.equal(encoded(clip, "t5xxl"), encoded(twin, "t5xxl"))


def test_gguf_of_three_encoders_in_their_own_names_and_of_a_model_with_its_autoencoder(
    folders: Folders, official: dict[str, Tensor]
) -> None:
    for place in ("clip", "checkpoints"):
        (folders.models / place).mkdir(parents=True)
    names, twins = [], []
    for encoder in ("clip_l", "clip_g", "t5xxl"):
        tensors = part(official, f"{TEXT}{encoder}.transformer.")
        path, grown = gguf_written(folders.models / f"clip/{encoder}-Q8_0.gguf", tensors, Kind.Q8_0)
        stored(folders, f"{encoder}.safetensors", grown)
        names.append(path.name)
        twins.append(folders.models / f"{encoder}.safetensors")
    given = {f"clip_name{number}": name for number, name in enumerate(names, 1)}
    clip, twin = NODES["TripleCLIPLoaderGGUF"](**given, services=folders), load_text_encoders(twins)
    assert all(torch.equal(encoded(clip, name), encoded(twin, name)) for name in ("clip_l", "clip_g", "t5xxl"))
    both = {key: tensor for key, tensor in official.items() if key.startswith((MODEL, VAE))}
    path, grown = gguf_written(folders.models / "checkpoints/x-Q8_0.gguf", both, Kind.Q8_0)
    model, _, vae = NODES["CheckpointLoaderSimple"](ckpt_name=path.name, services=folders)
    holds(model.network, part(grown, MODEL))
    holds(vae.network, part(grown, VAE))


def test_diffusers_transformer_in_shards_by_one_of_them(folders: Folders) -> None:
    theirs = oracle.transformer(2)
    home = folders.models / "diffusion_models"
    theirs.save_pretrained(home, max_shard_size="1500KB")
    assert len(list(home.glob("*.safetensors"))) > 1
    name = max(path.name for path in home.glob("*.safetensors"))
    found = NODES["UNETLoader"](unet_name=name, weight_dtype="default", services=folders).network.state_dict()
    expected = theirs.state_dict()
    fused = [expected[f"transformer_blocks.0.attn.to_{letter}.weight"] for letter in "qkv"]
    assert torch.equal(found["joint_blocks.0.x_block.attn.qkv.weight"], torch.cat(fused))
    assert torch.equal(found["x_embedder.proj.weight"], expected["pos_embed.proj.weight"])


ENCODERS: dict[str, tuple[str, Form]] = {
    "clip_l": ("clip_l", HALF),
    "clip_g": ("clip_g", HALF),
    "t5xxl_fp16": ("t5xxl", HALF),
    "t5xxl_fp8_e4m3fn": ("t5xxl", FLOAT8),
    "t5xxl_fp8_e4m3fn_scaled": ("t5xxl", SCALE_WEIGHT),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_text_encoders_alone(folders: Folders, official: dict[str, Tensor], name: str) -> None:
    encoder, form = ENCODERS[name]
    tensors, values = form(part(official, f"{TEXT}{encoder}.transformer."))
    stored(folders, f"text_encoders/{name}.safetensors", tensors)
    stored(folders, "twin.safetensors", {key: tensor.float() for key, tensor in values.items()})
    clip = NODES["CLIPLoader"](clip_name=f"{name}.safetensors", type="sd3", services=folders)
    assert set(clip.encoders) == {encoder}
    twin = load_text_encoders([folders.models / "twin.safetensors"])
    assert torch.equal(encoded(clip, encoder), encoded(twin, encoder))


def test_a_folder_with_an_encoder_in_two_precisions_is_its_plain_file(
    folders: Folders, official: dict[str, Tensor], checkpoint: Checkpoint
) -> None:
    tensors = part(official, f"{TEXT}clip_l.transformer.")
    stored(folders, "text_encoder/model.safetensors", tensors)
    stored(folders, "text_encoder/model.fp16.safetensors", {key: -tensor for key, tensor in tensors.items()})
    assert checkpoint.clip is not None
    found = load_text_encoders([folders.models / "text_encoder"])
    assert torch.equal(encoded(found, "clip_l"), encoded(checkpoint.clip, "clip_l"))


@pytest.mark.parametrize("prefix", ["", VAE])
def test_autoencoders_in_the_original_names(folders: Folders, official: dict[str, Tensor], prefix: str) -> None:
    stored(folders, "vae/x.safetensors", prefixed(prefix, part(official, VAE)))
    holds(NODES["VAELoader"](vae_name="x.safetensors", services=folders).network, part(official, VAE))


@torch.no_grad()
def test_autoencoders_in_diffusers_names_and_taesd3(folders: Folders) -> None:
    torch.manual_seed(0)
    channels = {"latent_channels": 16, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    theirs = AutoencoderKL(**channels, **kinds, use_quant_conv=False, use_post_quant_conv=False).eval()
    tiny = AutoencoderTiny(latent_channels=16).eval()
    stored(folders, "vae/x.safetensors", theirs.state_dict())
    stored(folders, "vae/tiny.safetensors", tiny.state_dict())
    halves(tiny, folders.models / "vae_approx")
    latent = torch.randn(1, 16, 3, 4)
    for name, decode in (("x.safetensors", theirs), ("tiny.safetensors", tiny), ("taesd3", tiny)):
        vae = NODES["VAELoader"](vae_name=name, services=folders)
        expected = (decode.decode((latent - 0.0609) * 1.5305 if decode is tiny else latent).sample / 2 + 0.5).clamp(
            0, 1
        )
        torch.testing.assert_close(vae.decode(latent), expected.movedim(1, -1), rtol=0, atol=1e-5)


def test_controlnets_of_both_kinds(folders: Folders) -> None:
    joint, stream = oracle.joint(2, qk_norm=None), oracle.stream(2)
    nets = {"joint": joint.state_dict(), "large": stream.state_dict(), "original": oracle.original_layout(stream)}
    for name, tensors in nets.items():
        stored(folders, f"controlnet/{name}.safetensors", tensors)
        net = NODES["ControlNetLoader"](control_net_name=f"{name}.safetensors", services=folders)
        assert net.shape.is_joint == (name == "joint")
        found = net.recipe.network.state_dict()
        for key in ("controlnet_blocks.0.weight", "controlnet_blocks.1.bias", "pos_embed_input.proj.weight"):
            assert torch.equal(found[key], tensors[key])


@pytest.mark.parametrize("style", STYLES)
def test_every_key_of_an_adapter_finds_its_weight(checkpoint: Checkpoint, unpack: Unpack, style: str) -> None:
    adapter = load_adapter(unpack(f"lora_{style}.safetensors"))
    assert checkpoint.clip is not None
    fitted = [checkpoint.model.fitting(adapter), *checkpoint.clip.fitting(adapter).values()]
    assert sum(map(len, fitted)) > 0
    assert adapter.unused(*fitted) == []


def test_embeddings_from_safetensors_and_from_a_pickle_not(tmp_path: Path) -> None:
    rows = torch.randn(2, 768)
    save_file({"clip_l": rows}, tmp_path / "new.safetensors")
    torch.save({"string_to_param": {"*": rows}}, tmp_path / "old.pt")
    find = Embeddings([tmp_path]).finder("clip_l")
    assert torch.equal(torch.stack([vector.values for vector in find("new") or ()]), rows)
    with pytest.raises(RefusedFile, match=r"old\.pt.*safetensors files only, not from pickles.*save its tensor"):
        find("old")


def nf4(model: Tensors) -> dict[str, Tensor]:
    """A matrix as bitsandbytes writes it: two values a byte in one column, maxima of 64, the table, and what it is."""
    name = "joint_blocks.0.x_block.mlp.fc1.weight"
    size, state = model[name].numel(), json.dumps({"quant_type": "nf4", "blocksize": 64}).encode()
    return dict(model) | {
        name: torch.zeros(size // 2, 1, dtype=torch.uint8),
        f"{name}.absmax": torch.ones(size // 64),
        f"{name}.quant_map": torch.linspace(-1, 1, 16),
        f"{name}.quant_state.bitsandbytes__nf4": torch.tensor(list(state), dtype=torch.uint8),
    }


def test_nf4_and_pickles_are_named_with_the_way_out(folders: Folders) -> None:
    model = drawn_weights(MEDIUM_3)
    stored(folders, "unet/nf4.safetensors", nf4(model))
    with pytest.raises(UnknownModel, match=r"stored as nf4 \(bitsandbytes\).*take the file in float8, GGUF or 16 bits"):
        NODES["UNETLoader"](unet_name="nf4.safetensors", weight_dtype="default", services=folders)
    (folders.models / "checkpoints").mkdir()
    for name in ("x.ckpt", "x.pt"):
        torch.save(dict(model), folders.models / "checkpoints" / name)
        with pytest.raises(RefusedFile, match=r"a PyTorch pickle.*only safetensors and GGUF files are opened"):
            NODES["CheckpointLoaderSimple"](ckpt_name=name, services=folders)
