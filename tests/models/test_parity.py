"""Single forwards against the official code, ComfyUI, diffusers and transformers, on the same tiny weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sigmagraph.engine.models import Checkpoint, Model, load_diffusion_model
from tests.models.conftest import Arrays, Unpack

SINGLE_FORWARD = 1e-4


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=SINGLE_FORWARD)


@pytest.fixture(scope="module", params=["mmdit_a", "mmdit_b", "mmdit_c"])
def named(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, diffusers_shards: Path, unpack: Unpack
) -> tuple[str, Model]:
    match request.param:
        case "mmdit_a":
            return "mmdit_a", checkpoint.model
        case "mmdit_b":
            return "mmdit_b", load_diffusion_model(diffusers_shards)
        case _:
            return "mmdit_c", load_diffusion_model(unpack("mmdit_c.safetensors"))


@pytest.mark.parametrize("case", ["square", "landscape", "skip0", "control", "odd"])
def test_the_transformer_gives_the_velocity_of_the_reference(
    named: tuple[str, Model], arrays: Arrays, case: str
) -> None:
    name, model = named
    io = arrays(name)[case]
    with torch.no_grad():
        velocity = model.network(
            io["x"],
            io["t"],
            io["y"],
            io["context"],
            skip_layers={0} if case == "skip0" else (),
            control=[list(io["control"])] * model.spec.shape.depth if case == "control" else (),
        )
    assert_equal(velocity, io["out"] if "out" in io else io["out.official"])


@pytest.mark.parametrize("case", ["square", "landscape", "odd", "skip0"])
def test_a_model_predicts_x_minus_sigma_times_velocity(named: tuple[str, Model], arrays: Arrays, case: str) -> None:
    from sigmagraph.engine.models import Conditioning

    name, model = named
    io = arrays(name)[case]
    if case == "skip0":
        model = model.with_skipped_layers([0])
    for image in range(io["x"].shape[0]):
        one = slice(image, image + 1)
        sigma = float(io["t"][image]) / 1000.0
        (denoised,) = model.predict(io["x"][one], sigma, [Conditioning(io["context"][one], io["y"][one])])
        assert_equal(denoised, io["x"][one] - sigma * io["out"][one])


@pytest.mark.parametrize("case", ["square", "wide"])
def test_the_vae_encodes_to_the_mean_and_decodes_as_the_reference(
    checkpoint: Checkpoint, arrays: Arrays, case: str
) -> None:
    assert checkpoint.vae is not None
    io = arrays("vae")[case]
    image = io["image"].movedim(1, -1) / 2 + 0.5
    latent = checkpoint.vae.encode(image)
    assert_equal(latent, io["mean"])
    assert_equal(checkpoint.model.spec.latent_format.to_model(latent), io["latent_model_space"])
    assert_equal(checkpoint.vae.decode(io["latent"]), (io["decoded"].movedim(1, -1) / 2 + 0.5).clamp(0, 1))
    with torch.no_grad():
        assert_equal(checkpoint.vae.network.decode(io["latent"]), io["decoded"])
        assert_equal(checkpoint.vae.network.encode(io["image"])[1], io["logvar"])


@pytest.mark.parametrize("name", ["clip_l", "clip_g"])
@pytest.mark.parametrize("case", ["one", "two"])
def test_a_clip_tower_gives_penultimate_states_and_the_projected_pooled_vector(
    checkpoint: Checkpoint, arrays: Arrays, name: str, case: str
) -> None:
    assert checkpoint.clip is not None
    io = arrays(name)[case]
    encoded = checkpoint.clip.encoders[name].encode(io["ids"])
    assert_equal(encoded.hidden, io["penultimate"])
    assert encoded.pooled is not None
    assert_equal(encoded.pooled, io["projected"])


@pytest.mark.parametrize("case", ["len77", "len160"])
@pytest.mark.parametrize("layer", [None, -1])
def test_t5_gives_its_last_states_after_the_final_norm(
    checkpoint: Checkpoint, arrays: Arrays, case: str, layer: int | None
) -> None:
    assert checkpoint.clip is not None
    io = arrays("t5xxl")[case]
    assert_equal(checkpoint.clip.encoders["t5xxl"].encode(io["ids"], layer).hidden, io["out"])


def test_the_last_layer_of_a_clip_tower_is_its_last_state_before_the_norm(
    checkpoint: Checkpoint, arrays: Arrays
) -> None:
    assert checkpoint.clip is not None
    io = arrays("clip_l")["two"]
    encoder = checkpoint.clip.encoders["clip_l"]
    last = encoder.encode(io["ids"], -1).hidden
    normed = encoder.recipe.network.final_layer_norm(last)  # type: ignore[attr-defined]
    assert_equal(normed, io["last"])
