import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.nodes import NODES
from sigmagraph.nodes.images.sizes import IMAGE_METHODS


def ramp(width: int, height: int) -> Tensor:
    """[1, height, width, 3]: red grows to the right, green downwards, blue is flat."""
    across = (torch.arange(width) + 0.5) / width
    down = (torch.arange(height) + 0.5) / height
    planes = [across.expand(height, width), down[:, None].expand(height, width), torch.full((height, width), 0.25)]
    return torch.stack(planes, -1)[None]


def scaled(image: Tensor, width: int, height: int, method: str = "bilinear", crop: str = "disabled") -> Tensor:
    result: Tensor = NODES["ImageScale"](image=image, upscale_method=method, width=width, height=height, crop=crop)
    return result


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_every_method_keeps_a_ramp_a_ramp(method: str) -> None:
    small = scaled(ramp(64, 48), 32, 24, method)
    torch.testing.assert_close(small, ramp(32, 24), rtol=0, atol=1 / 64)


def test_a_side_of_zero_follows_the_other_and_both_leave_the_picture() -> None:
    picture = ramp(60, 40)
    assert scaled(picture, 30, 0).shape == (1, 20, 30, 3)
    assert scaled(picture, 0, 80).shape == (1, 80, 120, 3)
    assert scaled(picture, 0, 0) is picture


@pytest.mark.parametrize("method", ["area", "lanczos"])
def test_cropping_takes_the_middle_of_the_right_proportions(method: str) -> None:
    cropped = scaled(ramp(64, 32), 16, 16, method, "center")
    expected = ramp(64, 32)[:, :, 16:48]
    torch.testing.assert_close(cropped, scaled(expected, 16, 16, method))
    squeezed = scaled(ramp(64, 32), 16, 16, method)
    assert cropped[0, 0, 0, 0] > 0.2 > squeezed[0, 0, 0, 0]


def test_a_sliver_of_a_crop_keeps_a_pixel() -> None:
    assert scaled(ramp(64, 2), 1, 100, "bilinear", "center").shape == (1, 100, 1, 3)


def test_lanczos_is_pillows_on_eight_bits() -> None:
    picture = torch.rand(1, 20, 30, 3, generator=torch.Generator().manual_seed(1))
    levels = Pillow.fromarray((picture[0] * 255).to(torch.uint8).numpy())
    theirs = levels.resize((45, 50), Pillow.Resampling.LANCZOS)
    got = (scaled(picture, 45, 50, "lanczos")[0] * 255).round().to(torch.uint8)
    assert bytes(got.numpy().tobytes()) == theirs.tobytes()


def test_a_factor_and_a_number_of_pixels_keep_the_proportions() -> None:
    by: Tensor = NODES["ImageScaleBy"](image=ramp(30, 20), upscale_method="area", scale_by=1.5)
    assert by.shape == (1, 30, 45, 3)
    total: Tensor = NODES["ImageScaleToTotalPixels"](image=ramp(40, 10), upscale_method="area", megapixels=0.25)
    assert total.shape == (1, 256, 1024, 3)


def test_sides_beyond_reason_are_refused_by_size() -> None:
    with pytest.raises(BadValue, match="24000 x 8.*at most 16384"):
        NODES["ImageScaleBy"](image=ramp(3000, 1), upscale_method="area", scale_by=8.0)


@pytest.mark.parametrize("steps", [1, 8, 16, 64])
def test_sides_of_a_total_are_multiples_of_the_step(steps: int) -> None:
    image = torch.rand(1, 90, 160, 3)
    found = NODES["ImageScaleToTotalPixels"](
        image=image, upscale_method="bilinear", megapixels=0.25, resolution_steps=steps
    )
    height, width = found.shape[1:3]
    assert (height % steps, width % steps) == (0, 0)
    assert abs(height * width / (0.25 * 1024 * 1024) - 1) < 0.2
