"""Every tensor name and shape of the published files against our modules, built without memory on the meta device."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from sigmagraph.engine.models.arch import (
    Autoencoder,
    ControlShape,
    JointControlNet,
    MMDiT,
    MMDiTShape,
    StreamControlNet,
    VaeShape,
)
from sigmagraph.engine.models.files.detect import find_parts
from sigmagraph.engine.models.files.read import StoredTensor, WeightFile
from sigmagraph.engine.models.memory.device import Placement
from sigmagraph.engine.models.memory.resident import check_tensors
from sigmagraph.engine.models.spec import sd3_spec
from sigmagraph.engine.models.text.encoders import clip_encoder, t5_encoder
from tests.models.conftest import DATA, packed_json

MANIFESTS: Mapping[str, Mapping[str, list[int]]] = packed_json("manifests.json")
META = Placement(torch.device("meta"), torch.float16)
TRANSFORMERS = {
    "sd3_medium": ("SD3 Medium", MMDiTShape(24, 1536, 2048, 4096, 192, has_qk_norm=False)),
    "sd3.5_medium": (
        "SD3.5 Medium",
        MMDiTShape(24, 1536, 2048, 4096, 384, dual_attention_blocks=frozenset(range(13))),
    ),
    "sd3.5_large": ("SD3.5 Large", MMDiTShape(38, 2432, 2048, 4096, 192)),
}


def published(name: str, prefix: str = "") -> WeightFile:
    """A weight file with the manifest's tensors, each without values."""
    tensors = {}
    for key, shape in MANIFESTS[name].items():
        empty = torch.empty(shape, device="meta", dtype=torch.float16)
        tensors[prefix + key] = StoredTensor(tuple(shape), torch.float16, lambda empty=empty: empty)  # type: ignore[misc]
    return WeightFile(DATA / name, tensors)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_published_transformer_is_recognised_and_fits_name_by_name(name: str, layout: str, prefix: str) -> None:
    family, expected = TRANSFORMERS[name]
    weights = find_parts(published(f"{name}.{layout}", prefix)).mmdit
    assert weights is not None
    shape = MMDiTShape.from_tensors({key: tensor.shape for key, tensor in weights.items()})
    assert shape == expected
    assert sd3_spec(shape).family == family
    with torch.device("meta"):
        module = MMDiT(shape)
    check_tensors(name, shapes_of(module), weights)
    assert shapes_of(module) == {key: tuple(size) for key, size in MANIFESTS[f"{name}.original"].items()}


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_the_published_vae_is_recognised_and_fits_name_by_name(layout: str, prefix: str) -> None:
    weights = find_parts(published(f"vae.{layout}", prefix)).vae
    assert weights is not None
    shape = VaeShape.from_tensors({key: tensor.shape for key, tensor in weights.items()})
    assert shape == VaeShape()
    with torch.device("meta"):
        module = Autoencoder(shape)
    check_tensors("vae", shapes_of(module), weights)
    assert shapes_of(module) == {key: tuple(size) for key, size in MANIFESTS["vae.original"].items()}


@pytest.mark.parametrize(
    ("manifest", "name", "prefix"),
    [
        ("clip_l.file", "clip_l", ""),
        ("clip_g.file", "clip_g", ""),
        ("clip_g.openclip", "clip_g", ""),
        ("t5xxl.file", "t5xxl", ""),
        ("clip_l.file", "clip_l", "text_encoders.clip_l.transformer."),
        ("clip_g.file", "clip_g", "text_encoders.clip_g.transformer."),
        ("t5xxl.file", "t5xxl", "text_encoders.t5xxl.transformer."),
    ],
)
def test_a_published_text_encoder_is_recognised_and_fits_name_by_name(manifest: str, name: str, prefix: str) -> None:
    parts = find_parts(published(manifest, prefix))
    assert list(parts.encoders) == [name]
    weights = parts.encoders[name]
    encoder = t5_encoder(weights, META, 77) if name == "t5xxl" else clip_encoder(name, weights, META)
    assert (encoder.width, encoder.pooled_width) == {
        "clip_l": (768, 768),
        "clip_g": (1280, 1280),
        "t5xxl": (4096, 0),
    }[name]
    if name != "t5xxl":
        assert (encoder.rule.start, encoder.rule.end, encoder.rule.chunk_length) == (49406, 49407, 77)
        assert encoder.rule.pad == (49407 if name == "clip_l" else 0)


@pytest.mark.parametrize("part", ["sd3.5_large", "t5xxl"])
def test_scaled_float8_files_lose_their_scales_and_fit(part: str) -> None:
    base = published(f"{part}.original" if part != "t5xxl" else "t5xxl.file")
    extra = published(f"{part}.fp8_scaled_extra")
    file = WeightFile(base.path, {**base.weights, **extra.weights})
    parts, plain = find_parts(file), find_parts(base)
    found = parts.mmdit if part == "sd3.5_large" else parts.encoders["t5xxl"]
    expected = plain.mmdit if part == "sd3.5_large" else plain.encoders["t5xxl"]
    assert found is not None
    assert expected is not None
    assert {name: tensor.shape for name, tensor in found.items()} == {name: t.shape for name, t in expected.items()}


LARGE_CONTROL = ControlShape(MMDiTShape(19, 2432, 2048, 1, 1, has_qk_norm=False), 16, is_joint=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sd3.5_large_controlnet.original", LARGE_CONTROL),
        ("sd3.5_large_controlnet.diffusers", LARGE_CONTROL),
        (
            "sd3_controlnet_joint_6_layers.diffusers",
            ControlShape(MMDiTShape(6, 1536, 2048, 4096, 192, has_qk_norm=False), 16, is_joint=True),
        ),
    ],
)
def test_a_published_controlnet_is_recognised_and_fits_name_by_name(name: str, expected: ControlShape) -> None:
    parts = find_parts(published(name))
    assert parts.listing() == "a ControlNet"
    weights = parts.control
    assert weights is not None
    shape = ControlShape.from_tensors({key: tensor.shape for key, tensor in weights.items()})
    assert shape == expected
    with torch.device("meta"):
        module = JointControlNet(shape) if shape.is_joint else StreamControlNet(shape)
    check_tensors(name, shapes_of(module), weights)
