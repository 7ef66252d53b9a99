import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sigmagraph.engine.compose.preview_fitting import PICTURES, RUN_STEPS, fit_preview_for
from sigmagraph.engine.errors import BadValue, CorruptFile
from sigmagraph.engine.models.arch.preview import PreviewDecoder
from sigmagraph.engine.models.preview import fit_preview, load_preview, save_preview, shown_rms
from sigmagraph.nodes.latents.previews import Previewer
from sigmagraph.nodes.support.latent_preview import LatentPreview


def made_of_colours(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents whose pictures are a linear map of them that also depends on the mean of the whole, as group norms do."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.nn.functional.interpolate(torch.randn(count, 4, 3, 3, generator=generator), 8, mode="bicubic")
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(9)) / 8
    level = latents[:, :1].mean((1, 2, 3), keepdim=True) / 4
    colours = torch.einsum("nchw,cr->nrhw", latents, weights) + 0.5 + level
    pictures = torch.nn.functional.interpolate(colours, 64, mode="bicubic").clamp(0, 1)
    return latents, pictures


def test_a_fit_finds_a_map_that_depends_on_the_whole_picture() -> None:
    decoder = fit_preview(*made_of_colours(300, 1), steps=500)
    unseen = made_of_colours(40, 2)
    assert shown_rms(decoder, *unseen) < 12, "the pictures themselves spread over 50"
    again = fit_preview(*made_of_colours(300, 1), steps=500)
    assert all(torch.equal(one, other) for one, other in zip(decoder.parameters(), again.parameters(), strict=True))


def test_a_decoder_is_read_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder, latents = PreviewDecoder(16, 8, 4), torch.randn(2, 16, 5, 7)
    read = load_preview(save_preview(decoder, tmp_path / "a.preview", "a.safetensors"))
    assert (read.enlarges, read(latents).shape) == (4, (2, 3, 20, 28))
    torch.testing.assert_close(read(latents), decoder(latents), rtol=0, atol=5e-3)


@pytest.mark.parametrize("tensors", [{"first.weight": torch.zeros(8, 16, 3, 3)}, {"x": torch.zeros(1)}])
def test_another_file_is_refused_and_previews_go_on_without_it(
    tmp_path: Path, tensors: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.preview"
    save_file(tensors, path)
    with pytest.raises(CorruptFile, match="not a preview decoder"):
        load_preview(path)
    latent, weights = torch.zeros(1, 16, 4, 4), tmp_path / "model.safetensors"
    with caplog.at_level(logging.WARNING):
        shown = [Previewer(pause_s=0.0)(LatentPreview(latent, weights)) for _ in range(2)]
    plain = Previewer(pause_s=0.0)(latent)
    assert plain is not None
    assert all(one is not None and one.data == plain.data for one in shown)
    assert len([record for record in caplog.records if "model.preview" in record.getMessage()]) == 1


def test_a_checkpoint_is_fitted_on_pictures_and_along_its_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    found = fit_preview_for(tiny_checkpoint, ["a word"], side=64, steps=20, output=tmp_path / "a.preview")
    assert found.path == tmp_path / "a.preview"
    assert found.latents == (2 * PICTURES + RUN_STEPS) * 9 // 10 + 1
    assert load_preview(found.path).first.weight.shape[1] == 16


def test_a_vae_alone_is_fitted_and_has_no_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    prefix, alone = "first_stage_model.", tmp_path / "vae.safetensors"
    save_file({name: tensor for name, tensor in load_file(tiny_checkpoint).items() if name.startswith(prefix)}, alone)
    with pytest.raises(BadValue, match="no model with text encoders"):
        fit_preview_for(alone, ["a word"])
    assert fit_preview_for(alone, side=64, steps=2).path == tmp_path / "vae.preview"
