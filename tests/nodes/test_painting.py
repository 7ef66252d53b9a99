from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Picture
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES

IMAGE = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    (tmp_path / "input").mkdir()
    return made


def painted(folders: Folders, size: tuple[int, int], paint: tuple[int, int, int, int]) -> str:
    """A file whose left half is painted."""
    picture = Picture.new("RGBA", size)
    picture.paste(paint, (0, 0, size[0] // 2, size[1]))
    picture.save(folders.input_dir / "painter.png")
    return "painter.png [input]"


def test_paint_covers_the_picture_as_far_as_it_is_opaque(folders: Folders) -> None:
    name = painted(folders, (96, 64), (255, 0, 0, 51))
    image, mask = NODES["Painter"](mask=name, image=IMAGE, services=folders)
    assert mask.shape == (1, 64, 96)
    torch.testing.assert_close(mask[0, :, :48], torch.full((64, 48), 0.2))
    assert not mask[0, :, 48:].any()
    assert torch.equal(image[:, :, 48:], IMAGE[:, :, 48:])
    red = torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(image[:, :, :48], 0.8 * IMAGE[:, :, :48] + 0.2 * red)


def test_a_canvas_of_another_size_keeps_the_colour_of_paint_at_its_edges(folders: Folders) -> None:
    name = painted(folders, (40, 30), (255, 255, 255, 255))
    image, mask = NODES["Painter"](mask=name, image=torch.zeros(1, 64, 96, 3), services=folders)
    torch.testing.assert_close(image, mask[..., None].expand(-1, -1, -1, 3))  # white on black: the share itself
    assert bool(((mask > 0.01) & (mask < 0.99)).any())


def test_without_paint_there_is_the_ground_and_an_empty_mask(folders: Folders) -> None:
    image, mask = NODES["Painter"](mask="", width=64, height=128, bg_color="#ff8000", services=folders)
    assert image.shape == (1, 128, 64, 3)
    torch.testing.assert_close(image[0, 5, 5], torch.tensor([255, 128, 0]) / 255)
    assert mask.shape == (1, 128, 64)
    assert not mask.any()
    with pytest.raises(BadValue, match="colour"):
        NODES["Painter"](mask="", bg_color="mauve-ish", services=folders)


def test_a_prompt_with_and_without_a_painted_file_is_valid(folders: Folders) -> None:
    for name in ("", painted(folders, (64, 64), (0, 0, 0, 255))):
        inputs = {"mask": name, "width": 64, "height": 64, "bg_color": "#000000"}
        document = {
            "1": {"class_type": "Painter", "inputs": inputs},
            "2": {"class_type": "MaskPreview", "inputs": {"mask": ["1", 1]}},
        }
        assert validate(parse_workflow(document), NODES, folders).problems == []


def subject(top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(1, 64, 96)
    mask[:, top : top + height, left : left + width] = 1.0
    return mask


def cropped(images: Tensor, masks: Tensor, **settings: Any) -> Tensor:
    found: Tensor = NODES["ImageCropToMask"](images=images, masks=masks, **{"width": 64, "height": 64} | settings)
    return found


def test_the_subject_fills_the_frame_and_the_rest_is_ground() -> None:
    flat = torch.full((2, 64, 96, 3), 0.75)
    found = cropped(flat, subject(20, 30, 16, 16), background="#0000ff")
    assert found.shape == (2, 64, 64, 3)
    torch.testing.assert_close(found[:, 8:-8, 8:-8], flat[:, :48, :48])
    wide = cropped(flat, subject(20, 30, 16, 32), background="#0000ff")  # bands above and below
    torch.testing.assert_close(wide[:, 20:-20, 4:-4], torch.full((2, 24, 56, 3), 0.75))
    torch.testing.assert_close(wide[0, 2, 30], torch.tensor([0.0, 0.0, 1.0]))


def test_an_inverted_mask_gives_the_same_and_margins_show_ground_beyond_the_edges() -> None:
    mask = subject(24, 36, 20, 24)
    assert torch.equal(cropped(IMAGE, mask), cropped(IMAGE, 1.0 - mask))
    corner = cropped(torch.ones(1, 64, 96, 3), subject(0, 0, 16, 16), pad_factor=2.0)
    assert not corner[:, :14].any()
    assert not corner[:, :, :14].any()
    assert bool((corner[:, 20:44, 20:44] == 1).all())


def test_growing_widens_the_subject_and_an_empty_mask_means_the_whole_picture() -> None:
    flat = torch.ones(1, 64, 96, 3)
    grown = cropped(flat, subject(30, 40, 4, 4), grow_mask=6, pad_factor=2.0)
    plain = cropped(flat, subject(24, 34, 16, 16), pad_factor=2.0)
    assert torch.equal(grown, plain)
    assert bool((cropped(flat, torch.zeros(1, 64, 96), height=128) > 0).any())
    with pytest.raises(BadValue, match="masks"):
        cropped(IMAGE, torch.zeros(3, 64, 96))
