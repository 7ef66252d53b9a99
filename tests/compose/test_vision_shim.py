"""What stands in for torchvision's transforms: closed forms, and Pillow as a second opinion."""

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.compose.shims import vision
from sigmagraph.engine.execution.packs import Pack
from tests.compose.test_shims import folders


def ramp(height: int, width: int) -> Tensor:
    """Numbers that say their place."""
    return torch.arange(float(height * width)).reshape(1, height, width)


ASKS = """
import torchvision.transforms.v2 as T
import torchvision.transforms.functional as TF
from torchvision.transforms import Compose, InterpolationMode, ToTensor

change = Compose([ToTensor(), T.Resize((4, 2)), T.Normalize([0.5], [0.25])])
assert T.functional.rotate is TF.rotate
%s
NODE_CLASS_MAPPINGS = {}
"""
MISSING = {
    "from torchvision.transforms import ColorJitter": "cannot import name 'ColorJitter' from 'torchvision.transforms'",
    "import torchvision.datasets": "torchvision.datasets",
}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No torchvision, whatever this machine has; afterwards all as before."""
    path, known = list(sys.meta_path), {name: one for name, one in sys.modules.items() if name in vision.names()}
    for name in known:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if type(one) is not vision.Offer]
    yield
    sys.meta_path[:] = path
    for name in vision.names():
        sys.modules.pop(name, None)
    sys.modules.update(known)


@pytest.mark.usefixtures("without")
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="the real one is here")
def test_a_pack_imports_it_in_every_way_and_is_told_what_it_does_not_have(tmp_path: Path) -> None:
    own = folders(tmp_path)
    for number, line in enumerate(("", *MISSING)):
        (tmp_path / f"packs/asks{number}.py").write_text(ASKS % line, encoding="utf-8")
    heard: list[Pack] = []
    load_custom_nodes([tmp_path / "packs"], own, heard.append)
    assert heard[0].problems == ()
    change = sys.modules["custom_nodes.asks0"].change
    torch.testing.assert_close(change(Image.new("L", (8, 8), 255)), torch.full((1, 4, 2), 2.0))
    for pack, reason in zip(heard[1:], MISSING.values(), strict=True):
        assert reason in pack.problems[0]
        assert "docs/packs.md" in pack.problems[0]


@pytest.mark.usefixtures("without")
@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="the real one is here")
def test_only_packs_find_it() -> None:
    vision.offer()
    assert importlib.util.find_spec("torchvision") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torchvision.transforms")
    find = vision.Offer(vision.names()).find_spec
    assert find("torchvision.models") is None
    for asks, is_found in (("spandrel.architectures.LaMa", True), ("custom_nodes.a.b", True), ("transformers", False)):
        found = eval("find('torchvision.transforms')", {"__name__": asks, "find": find})
        assert (found is not None) is is_found, asks


@pytest.mark.usefixtures("without")
def test_a_real_one_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    vision.offer()
    assert not any(type(one) is vision.Offer for one in sys.meta_path)


def test_pictures_become_tensors_and_back_and_bytes_are_cut_not_rounded() -> None:
    rows = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    made = vision.to_tensor(Image.fromarray(rows))
    assert made.shape == (3, 2, 4)
    torch.testing.assert_close(made[1, 0, 2], torch.tensor(7 / 255))
    assert np.array_equal(np.array(vision.to_pil_image(torch.from_numpy(rows).permute(2, 0, 1))), rows)
    assert vision.to_pil_image(torch.full((1, 1, 1), 0.999)).getpixel((0, 0)) == 254
    assert vision.to_pil_image(torch.zeros(2, 3)).mode == "L"
    with pytest.raises(ValueError, match="5 channels; expected 1 to 4"):
        vision.to_pil_image(torch.zeros(5, 2, 2))


@pytest.mark.parametrize("mode", ["BILINEAR", "BICUBIC"])
def test_tensors_are_scaled_as_pillow_scales_pictures(mode: str) -> None:
    picture = torch.rand(1, 13, 17, generator=torch.Generator().manual_seed(1))
    image = Image.fromarray(picture[0].numpy())
    how = vision.InterpolationMode[mode]
    ours = vision.resize(picture, (7, 9), how)
    torch.testing.assert_close(ours, vision.to_tensor(vision.resize(image, (7, 9), how)), atol=1e-5, rtol=0)


def test_the_box_of_a_mask_is_its_outermost_pixels_and_of_an_empty_one_zeros() -> None:
    masks = torch.zeros(2, 8, 9)
    masks[0, 2, 3] = masks[0, 5, 7] = 1
    assert vision.masks_to_boxes(masks).tolist() == [[3, 2, 7, 5], [0, 0, 0, 0]]


def test_one_number_is_the_shorter_side() -> None:
    assert vision.resize(torch.zeros(3, 20, 51), 10).shape == (3, 10, 25)
    assert vision.resize(torch.zeros(3, 51, 20), 10, max_size=20).shape == (3, 20, 8)
    assert vision.resize(Image.new("RGB", (51, 20)), [10]).size == (25, 10)
    with pytest.raises(ValueError, match="lanczos; expected nearest, bilinear or bicubic"):
        vision.resize(torch.zeros(1, 2, 2), 1, vision.InterpolationMode.LANCZOS)


def test_a_point_is_blurred_into_the_bell() -> None:
    point = torch.zeros(2, 9, 9)
    point[:, 4, 4] = 1
    made = vision.gaussian_blur(point, (5, 3), (2.0, 1.0))
    ratio = made[0, 4, 4 + 2] / made[0, 4, 4], made[0, 4 + 1, 4] / made[0, 4, 4]
    torch.testing.assert_close(torch.stack(ratio), torch.tensor([math.exp(-0.5), math.exp(-0.5)]))
    torch.testing.assert_close(made.sum((1, 2)), torch.ones(2))
    default = vision.gaussian_blur(point, 3)  # sigma 0.3 * ((3 - 1) / 2 - 1) + 0.8
    torch.testing.assert_close(default[0, 4, 5] / default[0, 4, 4], torch.tensor(math.exp(-1 / (2 * 0.64))))


def test_parts_reach_beyond_the_picture_as_pillows_do() -> None:
    picture, image = ramp(4, 6), Image.fromarray(ramp(4, 6)[0].numpy())
    for place in ((1, 2, 2, 3), (-1, -2, 4, 5), (2, 4, 5, 5), (9, 9, 2, 2), (-9, 0, 3, 3)):
        assert torch.equal(vision.crop(picture, *place), vision.to_tensor(vision.crop(image, *place))), place
    assert vision.center_crop(picture, (2, 2)).flatten().tolist() == [8, 9, 14, 15]
    assert vision.center_crop(picture, 7).shape == (1, 7, 7)
    assert vision.pad(ramp(1, 2), [1, 0]).flatten().tolist() == [0, 0, 1, 0]
    assert vision.hflip(ramp(1, 3)).flatten().tolist() == [2, 1, 0]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_go_against_the_clock(turns: int) -> None:
    picture = ramp(3, 5)
    made = vision.rotate(picture, 90 * turns, vision.InterpolationMode.NEAREST, expand=True)
    assert torch.equal(made, picture.rot90(turns, (1, 2)))


def test_a_turn_leaves_its_corners_to_the_filling_and_keeps_its_centre() -> None:
    made = vision.rotate(torch.zeros(1, 9, 9), 45, vision.InterpolationMode.BILINEAR, fill=[7.0])
    assert made[0, 0, 0] == 7
    assert made[0, 4, 4] == 0
    off = vision.rotate(ramp(4, 4), 180, center=[1, 1])
    assert off[0, :2, :2].flatten().tolist() == [5, 4, 1, 0]


def test_bytes_and_shares_change_into_each_other() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(vision.convert_image_dtype(vision.convert_image_dtype(every), torch.uint8), every)
    torch.testing.assert_close(
        vision.normalize(torch.ones(2, 1, 1), [0.5, 1], [0.5, 2]).flatten(), torch.tensor([1.0, 0])
    )
    with pytest.raises(ValueError, match="expected numbers that are not 0"):
        vision.normalize(torch.ones(1, 1, 1), [0], [0])


COLOURED = torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
BYTES = (COLOURED * 255).to(torch.uint8)


def test_brightness_is_bt_601s_and_pillow_agrees() -> None:
    grey = vision.FUNCTIONS["rgb_to_grayscale"](COLOURED)
    torch.testing.assert_close(grey[:, 0], torch.einsum("bchw,c->bhw", COLOURED, torch.tensor([0.2989, 0.587, 0.114])))
    three = vision.FUNCTIONS["rgb_to_grayscale"](BYTES, num_output_channels=3)
    image = Image.fromarray(BYTES[0].permute(1, 2, 0).numpy())
    seen = np.asarray(vision.FUNCTIONS["rgb_to_grayscale"](image, 3)).transpose(2, 0, 1)
    assert np.abs(three[0].numpy().astype(int) - seen).max() <= 1


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_changes_of_colour_are_pillows_and_end_at_their_goal(name: str, factor: float) -> None:
    change = vision.FUNCTIONS[name]
    found = change(BYTES[0], factor)
    seen = np.asarray(change(Image.fromarray(BYTES[0].permute(1, 2, 0).numpy()), factor)).transpose(2, 0, 1)
    assert np.abs(found.numpy().astype(int) - seen).max() <= 2
    torch.testing.assert_close(change(COLOURED, 1.0), COLOURED)
    gone = change(COLOURED, 0.0)
    if name == "adjust_brightness":
        assert not gone.any()
    else:
        torch.testing.assert_close(gone, gone[:, :1].expand_as(gone))


def test_a_picture_is_turned_shifted_scaled_and_sheared_as_a_whole() -> None:
    affine, bilinear = vision.FUNCTIONS["affine"], vision.InterpolationMode.BILINEAR
    torch.testing.assert_close(affine(COLOURED, 0, (0, 0), 1.0, 0, bilinear), COLOURED, atol=1e-5, rtol=0)
    turned = affine(COLOURED, -30, (0, 0), 1.0, [0, 0], bilinear, fill=[0.2, 0.4, 0.6])
    torch.testing.assert_close(turned, vision.rotate(COLOURED, 30, bilinear, fill=[0.2, 0.4, 0.6]), atol=1e-5, rtol=0)
    shifted = affine(BYTES, 0, (2, -1), 1.0, 0)
    assert torch.equal(shifted[..., :5, 2:], BYTES[..., 1:, :-2])
    assert not shifted[..., :2].any()
    small = affine(torch.ones(1, 8, 8), 0, (0, 0), 0.5, 0)
    assert torch.equal(small[0, 2:6, 2:6], torch.ones(4, 4))
    assert small.sum() == 16
    sheared = affine(
        ramp(8, 8), 0, (0, 0), 1.0, (45.0, 0.0), bilinear
    )  # a row moves left by its height below the middle
    torch.testing.assert_close(sheared[0, 4, :-1], ramp(8, 8)[0, 4].unfold(0, 2, 1).mean(1), atol=1e-4, rtol=0)
    image = affine(Image.fromarray(BYTES[0].permute(1, 2, 0).numpy()), 0, (2, -1), 1.0, 0)
    assert np.array_equal(np.asarray(image).transpose(2, 0, 1), shifted[0].numpy())


@pytest.mark.parametrize(("number", "name"), [(0, "NEAREST"), (2, "BILINEAR"), (3, "BICUBIC")])
def test_pillows_numbers_name_the_same_ways_between_pixels(number: int, name: str) -> None:
    picture = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(4))
    mode = vision.InterpolationMode[name]
    assert Image.Resampling(number).name == name
    assert torch.equal(vision.resize(picture, [9, 4], number), vision.resize(picture, [9, 4], mode))
    with pytest.raises(ValueError, match="9 is not a valid"):
        vision.InterpolationMode(9)
