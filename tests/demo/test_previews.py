"""Previews of the demo in true colours: what is shown along runs it was not fitted to, against the real pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.demo.export import CHECKPOINT
from models.demo.measure import Pipeline
from models.demo.scenes import scenes
from sigmagraph.engine.models.preview import preview_beside
from sigmagraph.engine.sampling import Cfg, ComfyNoise, Sampling, run_sigmas
from sigmagraph.nodes.latents.previews import Previewer
from sigmagraph.nodes.support.latent_preview import LatentPreview

LARGEST_RMS = 20.0  # of 255


@pytest.fixture(scope="module")
def demo() -> Pipeline:
    return Pipeline(CHECKPOINT, steps=8)


@torch.inference_mode()
def estimates(demo: Pipeline, caption: str, seed: int) -> list[Tensor]:
    model = demo.model
    sigmas = run_sigmas(demo.schedule, model.parameterisation.levels, demo.steps)
    guided = Cfg(model.predict, demo.clip.encode(caption), demo.clip.encode(""), 4.0)
    run = Sampling(guided, torch.zeros(1, 16, 16, 16), sigmas, model.parameterisation, "euler", noise=ComfyNoise(seed))
    return [tick.denoised for tick in run.ticks()]


def shown(latent: Tensor, weights: Path | None) -> Tensor:
    """The preview as a client gets it, enlarged to the picture's size, of 255: [1, 3, 128, 128]."""
    made = Previewer(pause_s=0.0)(LatentPreview(latent, weights))
    assert made is not None
    with Image.open(io.BytesIO(made.data)) as picture:
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32)).movedim(-1, 0)[None]
    return F.interpolate(pixels, size=(128, 128), mode="area")


def rms(demo: Pipeline, latents: list[Tensor], weights: Path | None) -> float:
    real = demo.vae.decode(demo.model.spec.latent_format.to_vae(torch.cat(latents))).movedim(-1, 1) * 255
    return float((torch.cat([shown(latent, weights) for latent in latents]) - real).square().mean().sqrt())


def test_previews_along_unseen_runs_are_within_twenty_of_the_real_pictures(demo: Pipeline) -> None:
    errors = []
    for seed, scene in enumerate(scenes(5, 77, held_out=True)):
        along = estimates(demo, scene.caption, seed)
        errors.append(rms(demo, along, demo.model.file))
        assert rms(demo, along[-1:], demo.model.file) < LARGEST_RMS, scene.caption
    assert sum(error**2 for error in errors) / len(errors) < LARGEST_RMS**2


def test_the_demos_black_is_black(demo: Pipeline) -> None:
    last = estimates(demo, "a large red heart in the centre on a black background", 1)[-1]
    corner = shown(last, demo.model.file)[0, :, :24, :24]
    assert float(corner.mean(dim=(1, 2)).max()) < 50, "it showed green"
    assert float(shown(last, None)[0, :, :24, :24].mean(dim=(1, 2)).max()) > 50, "the linear map does"


def test_the_decoder_is_found_beside_a_file_that_is_linked_to(tmp_path: Path) -> None:
    link = tmp_path / CHECKPOINT.name
    link.symlink_to(CHECKPOINT)
    assert preview_beside(link) == CHECKPOINT.with_suffix(".preview")
    own = link.with_suffix(".preview")
    own.write_bytes(b"mine")
    assert preview_beside(link) == own
    assert preview_beside(tmp_path / "other.safetensors") is None
