"""TAESD3 against diffusers' AutoencoderTiny on random weights, in its layouts; the pixel space; what is offered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from sigmagraph.engine.errors import EngineError, UnknownModel, UnknownName
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import load_vae
from sigmagraph.engine.models.load import load_tiny_vae, pixel_space
from sigmagraph.nodes import NODES

SCALE, SHIFT = 1.5305, 0.0609


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    return AutoencoderTiny(latent_channels=16).eval()


def halves(theirs: Any, folder: Path) -> tuple[Path, Path]:
    """Its author's two files: layers are counted from a first one that squeezes latents."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "taesd3_encoder.safetensors", folder / "taesd3_decoder.safetensors"
    for path, side, before in zip(paths, ("encoder", "decoder"), (0, 1), strict=True):
        named = {}
        for name, tensor in getattr(theirs, side).layers.state_dict().items():
            number, _, rest = name.partition(".")
            named[f"{int(number) + before}.{rest}"] = tensor
        save_file(named, path)
    return paths


@pytest.mark.parametrize("layout", ["diffusers", "two files", "one file"])
@torch.no_grad()
def test_taesd3_gives_what_diffusers_gives(layout: str, theirs: Any, tmp_path: Path) -> None:
    if layout == "diffusers":
        theirs.save_pretrained(tmp_path)
        ours = load_vae(tmp_path)
    elif layout == "two files":
        ours = load_tiny_vae(*halves(theirs, tmp_path))
    else:
        named = {
            f"taesd_{side}.{int(name.partition('.')[0]) + before}.{name.partition('.')[2]}": tensor
            for side, before in (("encoder", 0), ("decoder", 1))
            for name, tensor in getattr(theirs, side).layers.state_dict().items()
        }
        save_file(named, tmp_path / "tiny.safetensors")
        ours = load_vae(tmp_path / "tiny.safetensors")
    image, latent = torch.rand(2, 32, 48, 3), torch.randn(2, 16, 4, 6) * 2
    encoded = (ours.encode(image) - SHIFT) * SCALE
    torch.testing.assert_close(encoded, theirs.encode(image.movedim(-1, 1) * 2 - 1).latents, rtol=0, atol=1e-5)
    decoded = (theirs.decode(latent).sample / 2 + 0.5).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(ours.decode(latent / SCALE + SHIFT), decoded, rtol=0, atol=1e-5)


def test_a_half_alone_is_no_autoencoder_and_one_for_four_channels_is_not_ours(theirs: Any, tmp_path: Path) -> None:
    encoder, decoder = halves(theirs, tmp_path)
    for half in (encoder, decoder):
        with pytest.raises(EngineError, match="TAESD3: .*missing"):
            load_vae(half)
    AutoencoderTiny(latent_channels=4).save_pretrained(tmp_path / "other")
    with pytest.raises(UnknownModel):
        load_vae(tmp_path / "other")


def test_pixels_are_their_own_latents() -> None:
    image = torch.rand(2, 5, 7, 3)
    latent = pixel_space().encode(image)
    torch.testing.assert_close(latent, image.movedim(-1, 1) * 2 - 1)
    torch.testing.assert_close(pixel_space().decode(latent), image)


def test_the_loader_offers_taesd3_where_both_files_are_and_keys_hold_both(theirs: Any, tmp_path: Path) -> None:
    folders = Folders(tmp_path / "models", tmp_path, tmp_path, tmp_path)
    declared = NODES["VAELoader"].declared["vae_name"]
    assert declared.allowed(folders) == ["pixel_space"]
    assert declared.file is not None
    with pytest.raises(UnknownName):
        declared.file.paths(folders, "taesd3")
    paths = halves(theirs, tmp_path / "models/vae_approx")
    assert declared.allowed(folders) == ["taesd3", "pixel_space"]
    assert declared.file.paths(folders, "taesd3") == list(paths)
    assert declared.file.paths(folders, "pixel_space") == []
    vae = NODES["VAELoader"](vae_name="taesd3", services=folders)
    assert vae.decode(torch.zeros(1, 16, 2, 2)).shape == (1, 16, 16, 3)
    assert NODES["VAELoader"](vae_name="pixel_space", services=folders).shape.downscale == 1
