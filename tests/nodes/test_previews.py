import io
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from sigmagraph.engine.compose.worker import _tiny_decoder
from sigmagraph.engine.errors import OutOfMemory
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.node import Progress
from sigmagraph.nodes.latents.previews import (
    COEFFICIENTS,
    EncodedPreview,
    Previewer,
    coefficients,
    save_image_websocket,
)
from tests.models.test_tiny_vae import halves


def test_the_fitted_map_shows_a_latent_as_a_small_picture() -> None:
    shown = Previewer()(torch.zeros(2, 16, 8, 12))
    assert shown is not None
    assert shown.content_type == "image/jpeg"
    assert not shown.is_result
    with Image.open(io.BytesIO(shown.data)) as picture:
        assert picture.size == (96, 64)
        fitted = json.loads(COEFFICIENTS.read_text())["offset"]
        blank = [round(max(0.0, min(1.0, channel)) * 255) for channel in fitted]
        colour = picture.getpixel((50, 30))
        assert isinstance(colour, tuple)
        assert colour == pytest.approx(blank, abs=3)


def test_a_large_latent_makes_no_picture_larger_than_512() -> None:
    shown = Previewer()(torch.zeros(1, 16, 300, 600))
    assert shown is not None
    with Image.open(io.BytesIO(shown.data)) as picture:
        assert picture.size == (512, 256)


def test_latents_are_shown_after_a_pause_and_results_always() -> None:
    now = [0.0]
    previewer = Previewer(pause_s=0.5, now=lambda: now[0])
    latent, result = torch.zeros(1, 16, 2, 2), EncodedPreview("image/png", b"x", is_result=True)
    assert previewer(latent) is not None
    assert previewer(latent) is None
    assert previewer(result) is result
    now[0] = 0.6
    assert previewer(latent) is not None


@pytest.mark.parametrize("value", [None, "text", torch.zeros(1, 4, 2, 2), torch.zeros(3)])
def test_what_is_no_latent_is_not_shown(value: object) -> None:
    assert Previewer()(value) is None


def test_the_map_takes_sixteen_channels_to_three_colours() -> None:
    fitted = coefficients()
    assert fitted is not None
    assert (fitted[0].shape, fitted[1].shape) == ((16, 3), (3,))


def test_pictures_for_the_socket_are_whole_pngs_in_order() -> None:
    images = torch.stack([torch.zeros(4, 4, 3), torch.ones(4, 4, 3)])
    steps = list(save_image_websocket.function(images=images))
    assert [(step.value, step.maximum) for step in steps] == [(0, 2), (1, 2)]
    for step, level in zip(steps, (0, 255), strict=True):
        assert isinstance(step, Progress)
        assert step.preview.is_result
        with Image.open(io.BytesIO(step.preview.data)) as picture:
            assert picture.getpixel((0, 0)) == (level,) * 3


def test_a_decoder_is_asked_for_a_picture_of_at_most_512_and_for_a_tenth_of_the_time() -> None:
    now, asked = [0.0], list[torch.Size]()

    def decode(latent: torch.Tensor) -> torch.Tensor:
        asked.append(latent.shape)
        now[0] += 0.4
        return torch.full((latent.shape[2] * 8, latent.shape[3] * 8, 3), 0.5)

    previewer = Previewer(pause_s=0.1, decode=decode, now=lambda: now[0])
    shown = previewer(torch.zeros(2, 16, 64, 128, dtype=torch.bfloat16))
    assert shown is not None
    assert asked == [(1, 16, 32, 64)]
    with Image.open(io.BytesIO(shown.data)) as picture:
        assert picture.size == (512, 256)
        assert picture.getpixel((9, 9)) == pytest.approx((128,) * 3, abs=2)  # type: ignore[arg-type]  # pixels
    now[0] = 3.9
    assert previewer(torch.zeros(1, 16, 8, 8)) is None
    now[0] = 4.1
    assert previewer(torch.zeros(1, 16, 8, 8)) is not None


def test_where_a_decoder_fails_the_linear_map_takes_over() -> None:
    def decode(latent: torch.Tensor) -> torch.Tensor:
        raise OutOfMemory("no room")

    previewer, latent = Previewer(pause_s=0.0, decode=decode), torch.randn(1, 16, 8, 12)
    shown, by_map = previewer(latent), Previewer()(latent)
    assert shown is not None
    assert by_map is not None
    assert shown.data == by_map.data
    assert previewer.decode is None


def test_a_worker_shows_latents_by_taesd3_where_its_files_are(tmp_path: Path) -> None:
    base = Folders(tmp_path / "models", tmp_path, tmp_path, tmp_path)
    assert _tiny_decoder(base) is None
    torch.manual_seed(0)
    tiny = AutoencoderTiny(latent_channels=16).eval()
    halves(tiny, tmp_path / "models/vae_approx")
    decode = _tiny_decoder(base)
    assert decode is not None
    latent = torch.randn(1, 16, 4, 6)
    with torch.no_grad():
        expected = (tiny.decode(latent).sample[0] / 2 + 0.5).clamp(0, 1).movedim(0, -1)
    torch.testing.assert_close(decode(latent), expected, rtol=0, atol=1e-5)
