import io
import json

import pytest
import torch
from PIL import Image

from sigmagraph.engine.graph.node import Progress
from sigmagraph.nodes.previews import COEFFICIENTS, EncodedPreview, Previewer, coefficients, save_image_websocket


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
